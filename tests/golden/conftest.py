"""Every case file under --golden-dir becomes a test `family/case`.

A module may have a function `takes_case(path)` that says which of them are for it.
"""

import pytest

NOT_BUILT = "not built"


def pytest_generate_tests(metafunc):
    if "golden_case" in metafunc.fixturenames:
        folder = metafunc.config.getoption("--golden-dir")
        cases = sorted(folder.glob("*/*.json"))
        if not cases:
            raise pytest.UsageError(f"--golden-dir {folder}: no <family>/<case>.json in there.")
        takes_case = getattr(metafunc.module, "takes_case", lambda path: True)
        cases = [path for path in cases if takes_case(path)]
        names = [f"{path.parent.name}/{path.stem}" for path in cases]
        metafunc.parametrize("golden_case", cases, ids=names)


def pytest_terminal_summary(terminalreporter):
    reports = terminalreporter.stats.get("skipped", [])
    missing = [r.nodeid.split("[")[-1][:-1] for r in reports if NOT_BUILT in str(r.longrepr)]
    if missing:
        terminalreporter.section(f"golden cases of families not built ({len(missing)})")
        for name in missing:
            terminalreporter.line(name)
