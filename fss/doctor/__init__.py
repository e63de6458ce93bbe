"""The checks of `fss doctor`, which import heavy packages inside alone, because these may be broken."""
