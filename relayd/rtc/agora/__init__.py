"""The `agora` link: Agora's server SDK, through its Python wrapper.

`installation` looks at what is installed and loads nothing, `install` and `wheel` install it;
`wrapper` alone imports it, tamed; `sdk` calls it, `observers` are called by it. `link` is the link
itself and `progress` its stages; `events`, `verdicts`, `planes` and `token` say what the SDK's
callbacks, codes, pictures and tokens mean.
"""
