"""What counts as a right number of a critic."""

import pytest

from genloop.data.irg.record import Diagnosis, Evidence
from genloop.evals.irg.cases import quoted
from tests.worlds.traces import trace

FEATURES = trace("dark").record.rounds[0].features.model_copy(update={"contrast": 0.0533, "noise": 1.26})


@pytest.mark.parametrize(
    ("feature", "value", "is_right"),
    [
        ("contrast", 0.053, True),
        ("contrast", 0.0533, True),
        ("contrast", 0.05, False),  # 0.050, whose last digit is dropped by JSON, is not 0.053
        ("contrast", 0.0534, False),
        ("noise", 1.3, True),
        ("noise", 1.26, True),
        ("noise", 1.0, False),
        ("count:star", 2.0, None),
    ],
)
def test_evidence_is_right_at_the_precision_of_texts_or_its_own(feature, value, is_right):
    evidence = Evidence(feature=feature, value=value, threshold=0.075, relation="below")
    found = quoted("", [Diagnosis(issue="low_contrast", severity=0.5, evidence=(evidence,))], FEATURES)
    assert found == ((0, 0) if is_right is None else (int(is_right), 1))
