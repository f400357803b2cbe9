import os
from pathlib import Path

import relayd
from relayd.process.environment import program_environment, proxies, python_environment

ALLOWED = {
    "PATH": "/usr/bin",
    "HOME": "/home/me",
    "LANG": "C.UTF-8",
    "LC_TIME": "de_DE.UTF-8",
    "TZ": "Europe/Berlin",
    "TMPDIR": "/var/tmp",
    "XDG_RUNTIME_DIR": "/run/user/1000",
    "SSL_CERT_FILE": "/etc/ca.pem",
    "SSL_CERT_DIR": "/etc/ca",
    "LD_LIBRARY_PATH": "/opt/lib",
}
SECRETS = {
    "AKOOL_API_KEY": "marker",
    "RELAYD_AKOOL__API_KEY": "marker",
    "RELAYD_OUTPUT__0__URL": "rtmp://host/live/marker",
    "AWS_SECRET_ACCESS_KEY": "marker",
    "CREDENTIALS_DIRECTORY": "/run/credentials/marker",
    "NOTIFY_SOCKET": "/run/marker",
    "SSH_AUTH_SOCK": "/tmp/marker",
    "LD_PRELOAD": "/tmp/marker.so",
    "PYTHONSTARTUP": "/tmp/marker.py",
    "PYTHONINSPECT": "marker",
    "FFREPORT": "file=marker",
    "https_proxy": "http://me:marker@proxy",
    "NO_PROXY": "marker",
    "ANYTHING_ELSE": "marker",
}


def test_a_program_gets_only_what_is_on_the_allow_list() -> None:
    assert program_environment(ALLOWED | SECRETS) == ALLOWED


def test_a_python_process_of_ours_imports_this_relayd_first() -> None:
    found = python_environment(ALLOWED | SECRETS | {"PYTHONPATH": "/site", "PYTHONHOME": "/py"})
    own = str(Path(relayd.__file__).parent.parent)
    assert found == ALLOWED | {"PYTHONHOME": "/py", "PYTHONPATH": f"{own}{os.pathsep}/site"}


def test_an_empty_environment_is_not_replaced_with_ours() -> None:
    assert program_environment({}) == {}
    assert list(python_environment({})) == ["PYTHONPATH"]
    assert proxies({}) == {}


def test_proxies_are_returned_separately_in_both_spellings() -> None:
    both = {name: SECRETS[name] for name in ("https_proxy", "NO_PROXY")}
    assert proxies(ALLOWED | SECRETS) == both
