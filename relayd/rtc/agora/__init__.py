"""The `agora` link: Agora's server SDK, through its Python wrapper.

`installation` checks what is installed and loads nothing, `install` and `wheel` install it; only
`wrapper` imports it, safely; `sdk` calls it, `observers` are called by it. `link` is the link
itself and `progress` its state machine; `events`, `error_codes`, `planes` and `token` interpret
the SDK's callbacks, codes, pictures and tokens.
"""
