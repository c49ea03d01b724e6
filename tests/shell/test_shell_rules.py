"""Approval rules mean the commands in a program: what allows means all of it for certain, what asks or denies any part perhaps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from effort import times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shell_kit import run, texts_of

from actors.tools.shell.parser import UNKNOWN
from actors.tools.shell.rules import Runs, may_fit
from protocol.approval import ApprovalRule, fits

PUSH = "git push*"

RUNS_IT = r"""
git push
git   push origin
cd x && git push
cd x || git push
a; git push
a | git push
a |& git push
a & git push
(git push)
((git push); ls)
{ git push; }
! git push
time git push
$(git push)
`git push`
echo $(git push)
echo "$(git push)"
echo "`git push`"
echo ${x:-$(git push)}
"${x:-'}" ; git push; echo "'}"
x=$(git push)
x=(`git push`)
[ $(git push) ]
cat <(git push)
diff x >(git push)
g"i"t push
'git' push
gi\t push
$'git' push
$'g\x69t' push
$"git" push
git${IFS}push
x=git; $x push
git $x
$x git push
"$x" push
{git,push}
/usr/bin/gi[t] push
/usr/bin/gi? push
/usr/bin/git push
~/bin/git push
git -C /x push
git -c a=b --no-pager push --force
git -c alias.p=push p
X=1 git push
X=1 Y="a b" git push
env X=1 git push
env -u X -i git push
sudo git push
sudo -u bob git push
timeout -s KILL 5 git push
nohup git push
nice -n 5 git push
command git push
exec git push
xargs git push
echo push | xargs git
find . -exec git push \;
find . -name git -exec {} push \;
sudo find . -name git -exec {} push \;
timeout 5 xargs -rI % % push
env find . -exec xargs -a f {} push \;
find . -exec sh -c '{} push' \;
fd -x git push
echo git | xargs -I {} {} push
echo git | xargs -I% sh -c '% push'
echo git | xargs --replace=R R push
parallel {} push ::: git
env -S 'git push'
env -S'git push'
env --split-string='git push'
env -vS 'git push' x
npx git push
npx -c 'git push'
npm exec -- git push
pnpm dlx git push
uv run git push
uv run --with x -- git push
uvx git push
poetry run git push
docker run --rm img git push
kubectl exec pod -- git push
direnv exec . git push
nix-shell --run 'git push'
tmux new-session -d 'git push'
tmux new -d git push
tmux send-keys git Space push Enter
tmux send 'git pu' 'sh' Enter
screen -dm git push
screen -X stuff 'git pu'
at now <<< 'git push'
git -c core.sshCommand='git push' fetch
git -c alias.x='!git push' x
git -c core.pager='!git push' log
test -v 'a[$(git push)]'
[[ 'a[$(git push)]' -eq 1 ]]
[[ -v 'a[`git push`]' ]]
printf -v 'a[$(git push)]' x
read 'a[$(git push)]' <<< x
read x <<< 'a[$(git push)]'; echo $((x))
declare 'a[$(git push)]=1'
unset 'a[$(git push)]'
let 'a[$(git push)]=1'
((a['$(git push)']=1))
a['$(git push)']=1
x='a[$(git push)]'; echo $((x))
x='$(git push)]'; test -v "a[$x"
bash -c 'git push'
bash -lc "cd x; git push"
sudo bash -c 'git push'
sh -c "sh -c 'git push'"
su -c 'git push' bob
ssh host 'git push'
ssh host git push
echo git push | sh
sh < file
bash <<< 'git push'
eval git push
eval "git push"
eval "$x"
trap 'git push' EXIT
alias g='git push'; g
if true; then git push; fi
if git push; then ls; fi
for i in 1 2; do git push; done
while read l; do git push; done < x
case x in a) git push;; esac
f() { git push; }; f
function f { git push; }; f
function f() { git push; }
coproc git push
coproc NAME { git push; }
time -p git push
source <(echo git push)
. /dev/stdin <<< 'git push'
bash /dev/stdin <<< 'git push'
echo git push | bash /dev/fd/0
bash <(echo git push)
PROMPT_COMMAND='git push' bash -i
PS4='$(git push)'; set -x; ls
x='$(git push)'; echo ${x@P}
GIT_SSH_COMMAND='git push' git fetch
>x git push
git push>x
2>&1 git push
[[ -f x ]] && git push
[ -f x ]&&git push
echo 'not closed; git push
echo $[1]; git push
"""

RUNS_IT_IN_LINES = [
    "ls\ngit push",
    "git \\\n push",
    "''$\\\n''git push",
    "echo $\\\n(git push)",
    "2\\\n>f git push",
    "cat <<E\\\nOF\n$(git push)\nEOF",
    "cat <<EOF\nEO\\\nF\ngit push\nEOF",
    "cat <\\\n<EOF\ngit push\nEOF",
    "ls # nothing\ngit push",
    "bash <<EOF\ngit push\nEOF",
    "cat <<EOF\n$(git push)\nEOF",
    "cat <<-EOF\n\tx\n\tEOF\ngit push",
    "cat <<'EOF' | sh\ngit push\nEOF",
    "cat <<A <<B\nB\nA\nB\ngit push",
    "cat <<'E' > f\nx\nE\ngit push",
    "((x=1<<2))\ngit push\n2\n",
    "echo $((1<<2))\ngit push\n2\n",
    "cat <<EOF\ngit push",
    "git\0push",
]

RUNS_OTHERS = r"""
git status
git log push
git rm push
git commit -m 'git push later'
echo 'git push'
echo "git push"
echo git\ push
grep -r 'git push' .
ls # git push
make push
python -c "print('git push')"
for f in *.py; do echo $f; done
if [[ $a == b ]]; then ls; fi
[ -f x ] && ls
find . -name '*.py' -exec grep -n git {} \;
echo a > git
echo $((1 + 2))
awk '{print $1}' f
sed -n 's/git push/x/p' f
ls *.py; rm -f x?
bash script.sh
source venv/bin/activate
CFLAGS="-O2 -g" make
time ls
function f { ls; }; f
ls | grep sh
sudo make install
npm install push
docker push git
kubectl get pods
uv add git
yarn add push
git -c user.name='git pusher' commit
test -f 'a[1]'
grep '[a-z]$' f
sed 's/[$]x/`/' f
find . -name '*.py' -print
tmux ls
find . -name x -exec cat {} \;
xargs -I% cp % /tmp
"""

RUNS_OTHERS_IN_LINES = [
    "cat <<'EOF' > f\ngit push\nEOF",
    "cat <<EOF\nhello $x, do git push\nEOF\nls",
    "python - <<'EOF'\nrun('git push')\nEOF",
]


def lines(text: str) -> list[str]:
    return text.strip("\n").split("\n")


@pytest.mark.parametrize("command", [*lines(RUNS_IT), *RUNS_IT_IN_LINES])
def test_a_rule_that_denies_means_any_command_that_perhaps_runs(command: str) -> None:
    assert Runs(command).perhaps(PUSH)


@pytest.mark.parametrize("command", [*lines(RUNS_OTHERS), *RUNS_OTHERS_IN_LINES])
def test_a_rule_that_denies_does_not_mean_what_only_looks_like_it(command: str) -> None:
    assert not Runs(command).perhaps(PUSH)


@pytest.mark.parametrize(
    "command",
    ["ls -l", " ls  a\n", "ls 'a b'", "ls src/*.py", "ls ~/x", "l's' -a", "ls a # all", "ls [", "ls {}"],
)
def test_a_rule_that_allows_means_one_plain_command(command: str) -> None:
    assert Runs(command).certainly("ls *")


@pytest.mark.parametrize(
    "command",
    [
        *(
            "ls a; rm x",
            "ls a\nrm x",
            "ls a & ",
            "ls a && rm x",
            "ls a || rm x",
            "ls x | y",
            "(ls a)",
            "{ ls a; }",
        ),
        *("ls $x", 'ls "$x"', "ls $(rm x)", "ls `rm x`", "ls <(rm x)", "ls ${x}", "ls $((1))", "ls $'a\\n'"),
        *("ls a > f", "ls a < f", "ls a 2>&1", "ls a <<EOF\nEOF", "X=1 ls a", "! ls a", "time ls a"),
        *("ls 'a[$(rm x)]'", "ls 'a[`rm x`]'", "ls a'['$'$(rm)]'"),
        *("ls *.py", "ls -*", "ls {a,b}", "'ls a' b", "ls 'x", "ls a #\nrm b", "ls \0", ""),
    ],
)
def test_a_rule_that_allows_means_nothing_with_an_operator_or_a_substitution(command: str) -> None:
    assert not Runs(command).certainly("ls *")


@pytest.mark.parametrize(
    "command", ["find . -exec rm {} +", "find . -ok rm x", "/usr/bin/find . -execdir a b"]
)
def test_a_star_of_a_rule_that_allows_means_no_word_that_starts_another_command(command: str) -> None:
    assert not Runs(command).certainly("*find *")
    assert Runs("find . -name x").certainly("find *")
    assert Runs("find . -exec cat {} +").certainly("find * -exec cat *")


def test_a_rule_without_a_pattern_means_every_command() -> None:
    arguments = {"command": "cd x && $(git push)"}
    for policy in ("allow", "ask", "deny"):
        assert ApprovalRule("shell", policy).matches(
            "shell", arguments, {"command": Runs(arguments["command"])}
        )


async def test_rules_of_a_pod_mean_the_commands_in_a_program(tmp_path: Path) -> None:
    rules = [
        {"tool": "shell", "policy": "deny", "match": {"command": "rm*"}},
        {"tool": "shell", "policy": "allow", "match": {"command": "echo *"}},
    ]
    (tmp_path / "f").touch()
    shown = await texts_of(
        run("echo 'rm f'"),
        run("cd . && /bin/rm f"),
        run("echo $(rm f)"),
        run("echo a; touch g"),
        approval=rules,
        pod={"pwd": str(tmp_path)},
    )
    assert shown[0] == "rm f\n[exit code 0]"
    assert "it is denied (the rule deny 'shell' with command = 'rm*')" in shown[1]
    assert "it is denied" in shown[2]
    assert "it needs a person's approval" in shown[3]
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


@settings(max_examples=times(300), deadline=None)
@given(
    st.text(alphabet="ab*?", max_size=6),
    st.text(alphabet=f"ab{UNKNOWN}", max_size=6),
    st.text(alphabet="ab", max_size=3),
)
def test_a_text_with_unknown_parts_may_fit_whatever_any_filling_fits(
    pattern: str, text: str, filling: str
) -> None:
    if fits(pattern, text.replace(UNKNOWN, filling)):
        assert may_fit(pattern, text)


PIECES = [
    *(
        "git",
        "push",
        "git push",
        " ",
        "'",
        '"',
        "$(",
        ")",
        "`",
        "\\",
        "\n",
        ";",
        "&&",
        "||",
        "|",
        "{",
        "}",
        "(",
    ),
    *(
        "<<EOF\n",
        "\nEOF\n",
        "<<'EOF'\n",
        "<<-EOF\n\t",
        "<<<",
        "<<",
        "<",
        ">f",
        "2>&1",
        "&>f",
        "<(",
        ">(",
        "$x",
        "x=git",
    ),
    *(
        "x=",
        "eval ",
        "if true; then ",
        "; fi",
        "case x in x) ",
        ";; esac",
        "#",
        "\t",
        "{a,b}",
        "{git,push}",
        "*",
        "[",
    ),
    *(
        "]",
        "$'",
        '"${x:-',
        "${x:-",
        "bash -c ",
        "-c ",
        "env ",
        "sudo ",
        "! ",
        "((",
        "))",
        "$((",
        "xargs ",
        "echo ",
    ),
    *(
        "-C . ",
        "time ",
        "for i in 1; do ",
        "; done",
        "[[ a == a ]]",
        "''",
        "a",
        "\\\n",
        "$'\\x67'",
        "trap ",
        "EXIT",
        "a[",
        "]",
        "'a[$(git push)]'",
        "test -v ",
        "printf -v ",
        "let ",
        "-I% ",
        "env -S ",
    ),
    *("command ", "exec ", "$", "=", "cat ", "sh", "/", "é", "\r", "%"),
]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of which `git` writes down how it was called."""
    folder = tmp_path_factory.mktemp("stubs")
    (folder / "git").write_text(
        f"#!{shutil.which('bash')}\n" + '{ printf "%s\\0" "$@"; printf "\\1"; } >> "$CALLS"\n'
    )
    (folder / "sudo").write_text(f'#!{shutil.which("bash")}\nexec "$@"\n')
    for each in ("git", "sudo"):
        (folder / each).chmod(0o755)
    for each in ("env", "xargs", "bash", "sh", "cat"):
        (folder / each).symlink_to(shutil.which(each) or "/nonexistent")
    return folder


@pytest.mark.skipif(
    shutil.which("bash") is None or sys.platform != "linux", reason="bash is asked what it runs"
)
@settings(max_examples=times(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=9).map("".join))
def test_what_bash_runs_is_seen_by_rules_that_deny_and_is_all_there_is_to_rules_that_allow(
    stubs: Path, tmp_path: Path, program: str
) -> None:
    calls = calls_of(program, stubs, tmp_path)
    runs = Runs(program)
    if any(each[:1] == ["push"] for each in calls):
        assert runs.perhaps(PUSH)
    if runs.certainly("git *"):
        assert [" ".join(("git", *each)) for each in calls] in ([], [runs._exact])


def calls_of(program: str, stubs: Path, folder: Path) -> list[list[str]]:
    """How bash calls `git` when it runs a program."""
    log = folder / uuid.uuid4().hex  # its own: what goes on in the background writes there still
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    subprocess.run(
        [shutil.which("bash") or "bash", "-c", program],
        env={"PATH": os.fspath(stubs), "CALLS": os.fspath(log)},
        cwd=work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    if not log.exists():
        return []
    text = log.read_bytes().decode(errors="replace")
    return [each.split("\0")[:-1] for each in text.split("\1")[:-1]]
