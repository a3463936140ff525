"""What a recorded training run says of itself: arrays in, verdict out.

    found = audit.audit(audit.Recording(learning_rate=0.01, momentum=0.9, num_examples=50_000,
                                        batch_size=50, weights=…, indices=…, curvatures=…))
    found.words                      ("stationary", "sampled otherwise than said")
    [one.sentence for one in found.verdict]

`python -m antisgd.audit recording.npz` does it from a shell and writes a page. The recording may
come from any framework; docs/audit.md has the lines that make one.
"""

from antisgd.audit.curvature import Directions
from antisgd.audit.examination import Audit, audit
from antisgd.audit.findings import LEVEL, Finding
from antisgd.audit.indices import IndexLaw, law_of_indices
from antisgd.audit.recording import Recording, load

__all__ = [
    "LEVEL",
    "Audit",
    "Directions",
    "Finding",
    "IndexLaw",
    "Recording",
    "audit",
    "law_of_indices",
    "load",
]
