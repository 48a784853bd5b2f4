"""Write the golden archives of the present format version: `python tests/golden/make.py`. Never over existing ones.

An archive that was written once must open forever, so a golden file is never changed or deleted; a new version of the
format gets new files beside the old ones.
"""

import hashlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))


def main() -> None:
    import lowbit
    import networks
    from fuzz import archives
    from lowbit.formats.onnx.archive import pack
    from lowbit.packing.archive import archive, expand_archive
    from lowbit.packing.container import VERSION

    model = lowbit.load(networks.residual_network())
    files = {"everything": archive(*archives.content())}
    for recipe in ("linear4", "linear8", "linear12", "linear16", "cluster3", "cluster2"):
        written = lowbit.quantize(model, recipe).save(HERE / "temporary.onnx")
        files[recipe] = pack(written.read_bytes())
        written.unlink()
    digests = json.loads((HERE / "sha256.json").read_text()) if (HERE / "sha256.json").exists() else {}
    for name, data in files.items():
        path = HERE / f"v{VERSION}-{name}.lowbit"
        if not path.exists():
            path.write_bytes(data)
            digests[path.name] = hashlib.sha256(expand_archive(data)).hexdigest()
    (HERE / "sha256.json").write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
