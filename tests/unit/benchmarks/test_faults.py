"""A few faults of the campaign: whatever happens to a run, once resumed it holds what an undisturbed one holds."""

import random

import pytest

from benchmarks.fault_kinds import FAULTS
from benchmarks.faults import Campaign

TELLING = [
    ("SIGSTOP beyond the lease", "evaluate"),
    ("torn checkpoint or record", "train_showo"),
    ("torn lease", "evaluate"),
    ("torn checkpoint or record", "train_dpo"),
    ("rename seen late", "train_showo"),
    ("clock jump", "evaluate"),
]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return Campaign(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(("kind", "job"), TELLING)
def test_a_telling_fault_changes_nothing(campaign: Campaign, kind: str, job: str) -> None:
    subject = next(subject for subject in campaign.subjects if subject.job == job)
    assert campaign.run(subject, kind, random.Random(3)) == "same"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [name for name, fault in FAULTS.items() if not fault.mounts and fault.share > 1])
def test_faults_of_every_kind_change_nothing(campaign: Campaign, kind: str) -> None:
    for number in range(2):
        chance = random.Random(f"{kind} {number}")
        assert campaign.run(chance.choice(campaign.subjects), kind, chance) == "same"
