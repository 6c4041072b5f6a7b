"""Run the tutorial on datasets in a folder, on sources that answer from this machine, faults and all.

With real nuclei where the real data is there, else with drawn ones.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from documents import ROOT, blocks, document

sys.path.insert(0, str(ROOT / "tests"))

from fake_sources import serving


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ.get("DEEPGPS_SHARED_DATA", ROOT.parent / "shared" / "data"))
    print(f"Nuclei: {f'real ones, from {data}' if data.is_dir() else 'drawn'}")
    with serving(data) as sources:
        sources.misbehave()
        tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **sources.environment, "PATH": tools}
        for command in (
            line
            for script in blocks(document("docs/tutorials/datasets.md"), "sh")
            for line in script.splitlines()
        ):
            print(f"\n$ {command}", flush=True)
            start = time.monotonic()
            if code := subprocess.run(["bash", "-c", command], cwd=folder, env=environment).returncode:
                return code
            print(f"({time.monotonic() - start:.1f} s)")
    print(f"\nAll is in {folder}; look at sheet.png and sheet-hpa.png.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
