"""The `agora` link: Agora's server SDK, through its Python wrapper.

`installation` looks at what is installed and loads nothing; `sdk` alone imports the wrapper;
`link` is the link itself, `events` what the SDK tells it, `planes` its pictures, `token` and
`verdicts` what its tokens and codes mean.
"""
