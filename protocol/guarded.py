"""Names that are guarded by themselves: secret files, which no rule allows but one that names them; what
belongs to git or to polypod, which no tool writes; and what steers polypod, which no rule allows.

Names alone decide, so one rule serves every tool, also one that never looks at a disk. Names are
compared as file systems do that are less strict than Linux: in whatever case, without characters that
show nothing, without blanks and dots at their ends.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

#: Folders that one program alone writes. In its own, polypod keeps who holds which session, and what people
#: have answered.
_OWNERS = {".git": "git", "git~1": "git", ".polypod": "polypod"}
#: The file that says what polypod starts, and what it asks a person for.
_STEERING = "polypod.toml"
#: Files of programs that keep passwords, tokens and keys in them, and folders of nothing else.
_SECRETS = frozenset(
    {
        *(".netrc", "_netrc", ".npmrc", ".pypirc", ".git-credentials", ".pgpass", "pgpass.conf", ".my.cnf"),
        *(".mylogin.cnf", ".htpasswd", ".dockercfg", ".s3cfg", ".boto", ".vault-token", ".terraformrc"),
        *("terraform.rc", "credentials.tfrc.json", "application_default_credentials.json", "kaggle.json"),
        *(".credentials.json", "oauth_creds.json", ".claude.json", ".sentryclirc"),
        *(".databrickscfg", ".authinfo", ".authinfo.gpg", "rclone.conf", ".rediscli_auth"),
        *(".secrets", ".secret", ".password", ".passwd", ".dev.vars", "local.settings.json", "kubeconfig"),
        *(".netrc.gpg", "secring.gpg", "rootkey.csv", "accesskeys.csv", _STEERING),
        *(".ssh", ".gnupg", ".aws", ".kube", ".azure", ".password-store", ".oci", ".mozilla"),
    }
)
#: The same, of names that say it only together with the folder they are in.
_SECRETS_WITHIN = frozenset(
    {
        *((".docker", "config.json"), (".config", "gcloud"), (".config", "gh"), (".config", "op")),
        *((".config", "hub"), ("git", "credentials"), (".gem", "credentials"), (".cargo", "credentials")),
        *((".cargo", "credentials.toml"), (".m2", "settings.xml"), (".m2", "settings-security.xml")),
        *((".gradle", "gradle.properties"), (".composer", "auth.json"), ("composer", "auth.json")),
        *(
            (".codex", "auth.json"),
            (".bundle", "config"),
            (".nuget", "nuget.config"),
            (".subversion", "auth"),
        ),
        *(
            (".config", "google-chrome"),
            (".config", "chromium"),
            (".config", "doctl"),
            (".fly", "config.yml"),
        ),
        *(("huggingface", "token"), ("huggingface", "stored_tokens"), (".huggingface", "token")),
        *(
            ("containers", "auth.json"),
            ("opencode", "auth.json"),
            ("nuget", "nuget.config"),
            ("age", "keys.txt"),
        ),
        *(("run", "secrets"), ("etc", "shadow"), ("etc", "gshadow")),
    }
)
# Patterns are compiled when first used, which only what touches files has them be.
_GUARDED_FORM = (
    r"(?s)\.env.*|.+\.env"
    r"|id_(?:rsa|dsa|ecdsa|ed25519|xmss).*"
    r"|ssh_host_.+_key"
    r"|.*\.(?:pem|key|p12|pfx|p8|ppk|jks|keystore|kdbx?|agekey|ovpn|kubeconfig|tfstate|tfvars)"
    r"|(?:client_secret|service[-_]account|gha-creds|.*firebase-adminsdk).*\.json"
    r"|(?:secret|password)s?\.(?:json|ya?ml|toml|ini|cfg|conf|csv|txt|xml|properties|db)"
    r"|credentials?\.(?:json|ya?ml|ini|csv|txt|db)"
    r"|\..+_history|\..*api[-_]?keys?|.*api[-_]?keys?\.(?:txt|json|ya?ml)"
)
#: Of such a form, and meant to be read: examples, public halves of keys, and the certificates of authorities,
#: without which no program of a virtual environment reaches a server.
_OPEN_FORM = (
    r"(?s)\.env(?:[._-].*)?[._-](?:example|sample|template|dist|schema)(?:\.(?:md|txt))?"
    r"|(?:.*[._-])?(?:example|sample|template|dist|schema)\.env"
    r"|.+\.pub"
    r"|(?:tls-)?ca[-_]?(?:certs?|bundle|certificates)\.pem|roots\.pem"
)
_COPY = r"(?:~|\.(?:bak|backup|old|orig|save|swp|tmp))+$"


def owner_of(name: str) -> str | None:
    """The program whose own a file or folder of that name is, in whatever spelling some system takes it."""
    return _OWNERS.get(_folded(name))


@functools.lru_cache(maxsize=8192)
def is_steering(name: str) -> bool:
    """Whether a file of that name steers polypod."""
    return _folded(name) == _STEERING


@functools.lru_cache(maxsize=8192)
def is_secret(name: str, folder: str = "") -> bool:
    """Whether a file or folder of that name, in a folder of that name, is secret."""
    name = _folded(name)
    plain = re.sub(_COPY, "", name) or name
    if plain in _SECRETS:
        return True
    if folder and (_folded(folder), plain) in _SECRETS_WITHIN:
        return True
    return re.fullmatch(_GUARDED_FORM, plain) is not None and re.fullmatch(_OPEN_FORM, plain) is None


def secret_depth(parts: Sequence[str]) -> int:
    """How many ``parts`` of a path lead down to the last that is secret; 0 where none is."""
    for n in range(len(parts), 0, -1):
        if is_secret(parts[n - 1], parts[n - 2] if n > 1 else ""):
            return n
    return 0


@functools.lru_cache(maxsize=8192)
def _folded(name: str) -> str:
    if not name.isascii():
        import unicodedata  # noqa: PLC0415 - paid for by names that are not ASCII

        shown = (each for each in unicodedata.normalize("NFKC", name) if unicodedata.category(each) != "Cf")
        name = "".join(shown)
    return name.casefold().partition(":")[0].rstrip(". ") or name
