"""What is secret or git's by its name is guarded in whatever spelling, and only a rule that names it allows it."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.guarded import is_secret, owner_of
from protocol.scope import Rule, Scope

SECRET = [
    *(".env", ".env.local", ".env.production", ".envrc", "prod.env", ".env.bak", ".env~"),
    *(
        "id_rsa",
        "id_ed25519_work",
        "server.pem",
        "cakey.pem",
        "ca.pem",
        "tls.key",
        "a.p12",
        "wallet.jks",
        "id_rsa.old",
    ),
    *(".netrc", ".npmrc", ".pypirc", ".git-credentials", ".pgpass", "credentials.json", "secrets.yaml"),
    *("passwords.csv", "secret.json", "credentials.yml", "terraform.tfstate", "prod.tfvars", ".key", ".p12"),
    *("ssh_host_ed25519_key", "x-firebase-adminsdk-1.json", ".bash_history", ".openai_api_key", ".dev.vars"),
    *(".ssh", ".aws", ".gnupg", ".kube", ".htpasswd", "client_secret_1.apps.json", ".vault-token"),
    *("oauth_creds.json", ".claude.json", ".sentryclirc", ".oci", ".mozilla"),
]
OPEN = [
    *(
        ".env.example",
        ".env.sample",
        ".env.production.template",
        "example.env",
        "id_rsa.pub",
        "env",
        "environment.py",
    ),
    *(
        "monkey",
        "secrets.py",
        "credentials",
        "config.json",
        "README.md",
        ".gitignore",
        ".github",
        "keys.txt",
        "a.pub",
        "api_keys.py",
        "terraform.tfvars.example",
        "history",
        "ssh_host_ed25519_key.pub",
    ),
    *("cacert.pem", "cacerts.pem", "ca-bundle.pem", "tls-ca-bundle.pem", "ca_certs.pem", "roots.pem"),
]
HIDDEN = "\u200b\u200c\u200d\ufeff"


@st.composite
def spelled(draw, names):
    """A name in a spelling that some file system takes for the same."""
    name = draw(st.sampled_from(names))
    letters = [draw(st.sampled_from([each.lower(), each.upper()])) for each in name]
    if draw(st.booleans()):
        letters.insert(draw(st.integers(0, len(letters))), draw(st.sampled_from(HIDDEN)))
    if draw(st.booleans()):
        letters = [chr(ord(each) + 0xFEE0) if each.isascii() and each.isalnum() else each for each in letters]
    return "".join(letters) + draw(st.sampled_from(["", " ", ".", ". ."]))


@pytest.mark.parametrize("name", SECRET)
def test_secret_names_are_known(name):
    assert is_secret(name)


@pytest.mark.parametrize("name", OPEN)
def test_what_only_looks_like_a_secret_is_open(name):
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("run", "secrets"),
        (".docker", "config.json"),
        (".config", "gh"),
        ("git", "credentials"),
        (".Cargo", "credentials.toml"),
        ("huggingface", "token"),
        ("NuGet", "NuGet.Config"),
        ("containers", "auth.json"),
    ],
)
def test_some_names_are_secret_in_their_folder_alone(folder, name):
    assert is_secret(name, folder)
    assert not is_secret(name, "src")


@given(spelled(SECRET), spelled([".git", ".polypod"]))
def test_a_spelling_does_not_hide_a_name(secret, owned):
    assert is_secret(secret)
    assert owner_of(owned) in {"git", "polypod"}
    scope = Scope.writable("/w")
    assert scope.permission(PurePosixPath("/w", "a", secret, "b")) is None
    assert scope.permission(PurePosixPath("/w", owned, "hooks", "x")) == "read"


PARTS = st.lists(
    st.sampled_from(["a", "b", ".env", ".git", ".polypod", "x.key", ".ssh"]), min_size=1, max_size=4
)
PATHS = PARTS.map(lambda parts: "/" + "/".join(parts))
RULES = st.lists(
    st.builds(Rule, PATHS | st.just("/"), st.sampled_from(["read", "write"]), st.booleans()), max_size=4
).map(tuple)


@given(RULES, RULES, PATHS)
def test_nothing_of_its_owner_is_written_and_a_secret_is_allowed_by_its_name_alone(allow, deny, path):
    path = PurePosixPath(path)
    scope = Scope(allow, deny)
    got = scope.permission(path)
    if ".git" in path.parts or ".polypod" in path.parts:
        assert got != "write"
    naming = []
    for rule in allow:
        below = path.parts[len(PurePosixPath(rule.target).parts) :]
        if not any(is_secret(part) for part in below):
            naming.append(rule)
    assert got == Scope(tuple(naming), deny).permission(path), (
        "a rule that does not name the secret changes nothing"
    )
    if not naming:
        assert got is None


def test_a_named_secret_is_allowed_as_the_rule_says():
    scope = Scope((Rule("/w", "write"), Rule("/w/.env", "write"), Rule("/home/.ssh", "read")))
    assert scope.permission(PurePosixPath("/w/.env")) == "write"
    assert scope.permission(PurePosixPath("/w/.env.local")) is None
    assert scope.permission(PurePosixPath("/home/.ssh/known_hosts")) == "read"
    assert scope.permission(PurePosixPath("/home/.ssh/id_rsa")) is None, (
        "a key in there has a name of its own"
    )
    assert Scope.readable("/w").narrow(scope).permission(PurePosixPath("/w/.env")) is None
