"""The local page of `fss demo`: mark an object in a few photos, find it in others."""
