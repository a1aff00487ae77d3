"""Trainings in legs: from checkpoint to checkpoint, and bit for bit what the whole gives."""

from __future__ import annotations

import json
import math

import pytest
import torch
from full_disk import run_on_full_disk
from proxy.layers import Cramped
from torch import Tensor, nn

from hilo_nas.events import Notice
from hilo_nas.measurement import ProxyPlan
from hilo_nas.models import build_subject
from hilo_nas.proxy.checkpoints import load_checkpoint, save_checkpoint
from hilo_nas.proxy.train import Training
from hilo_nas.proxy.worker_calls import score_network

BATCH, END = 32, 320
# Both have batch norm; one draws dropout from torch's own generator.
TRAINED = ("litv2", "dropout")
SUBJECTS = {
    "litv2": {
        "arch": {"embed_dims": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "patch_size": 2}
    },
    "dropout": {"timm": "test_resnet", "arguments": {"drop_rate": 0.5}},
    "cramped": {"layer": "proxy.layers:Cramped"},
}
NAME = {"subject": "one", "plan": "two", "seed": 3}


def plan(**changes):
    fields = {"img_size": 16, "batch_size": BATCH, "images": END, "hflip": False, "val_images": 60}
    return ProxyPlan(**{**fields, **changes})


def leg(data, *, until=None, checkpoint=None, subject="litv2", seed=0, emit=lambda event: None, **changes):
    return score_network(
        emit=emit,
        prepared={},
        subject=SUBJECTS[subject],
        plan=plan(**changes).to_dict(),
        data=data.to_dict(),
        seed=seed,
        device="cpu",
        until=until,
        checkpoint=None if checkpoint is None else str(checkpoint),
    )["score"]


def comparable(fields):
    return {name: value for name, value in fields.items() if name not in ("seconds", "scored_at")}


def assert_equal(ours, theirs, where="state"):
    """Bit for bit, through dictionaries and lists."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs), where
        for name in ours:
            assert_equal(ours[name], theirs[name], f"{where}.{name}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for i in range(len(ours)):
            assert_equal(ours[i], theirs[i], f"{where}[{i}]")
    else:
        assert ours == theirs, where


def content(path):
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module", params=TRAINED)
def whole(request, digits16, tmp_path_factory):
    """A training in one go: its network, its score and its state."""
    path = tmp_path_factory.mktemp("whole") / "a.pt"
    return request.param, leg(digits16, subject=request.param, checkpoint=path), content(path)


@pytest.mark.slow
@pytest.mark.parametrize("ends", [(160,), (32, 96, 288), (100, 200, 320), tuple(range(BATCH, END, BATCH))])
def test_a_resumed_training_gives_exactly_the_same_result(digits16, tmp_path, whole, ends):
    subject, score, state = whole
    path = tmp_path / "a.pt"
    for end in ends:
        part = leg(digits16, subject=subject, until=end, checkpoint=path)
        assert part["images_seen"] == -(-end // BATCH) * BATCH
        torch.rand(3)  # between legs, others draw from torch's generator
    last = leg(digits16, subject=subject, checkpoint=path)
    assert comparable(last) == comparable(score)
    assert_equal(content(path), state)


def test_a_score_on_the_way_is_that_of_a_training_that_ends_there(digits16, tmp_path):
    on_the_way = leg(digits16, until=96, checkpoint=tmp_path / "a.pt")
    short = leg(digits16, images=96)
    assert comparable(on_the_way) == comparable(short)  # the plan's name included


def test_a_budget_can_be_raised_after_the_end(digits16, tmp_path):
    leg(digits16, images=160, checkpoint=tmp_path / "a.pt")
    raised = leg(digits16, images=320, rungs=(160,), checkpoint=tmp_path / "a.pt")
    assert comparable(raised) == comparable(leg(digits16))


def test_a_leg_that_is_done_is_scored_again_and_not_trained_on(digits16, tmp_path):
    path = tmp_path / "a.pt"
    first = leg(digits16, until=96, checkpoint=path)
    before = content(path)
    assert comparable(leg(digits16, until=96, checkpoint=path)) == comparable(first)
    assert_equal(content(path), before)


def training(data, subject="litv2", **changes):
    torch.manual_seed(0)
    model = build_subject(SUBJECTS[subject], data.num_classes, 3)
    return Training(model, plan(**changes), data, seed=0, device=torch.device("cpu"), emit=lambda event: None)


@pytest.mark.slow
@pytest.mark.parametrize("subject", TRAINED)
def test_scoring_on_the_way_changes_nothing(digits16, subject):
    watched = training(digits16, subject)
    for _ in watched.steps(160):
        watched.evaluate()
    assert watched.model.training
    watched = watched.state()
    unwatched = training(digits16, subject)
    assert list(unwatched.steps(160))[-1] == 160
    assert_equal(watched, unwatched.state())


def test_the_micro_batch_size_survives_a_resume(digits16, tmp_path, monkeypatch):
    """Elsewhere more may fit, but batch norm would then see other statistics from one leg to the next."""
    events = []
    for limit, until in ((12, 96), (math.inf, 192)):
        monkeypatch.setattr(Cramped, "limit", limit)
        score = leg(digits16, until=until, checkpoint=tmp_path / "a.pt", subject="cramped", emit=events.append)
        assert (score["images_seen"], score["micro_batch_size"]) == (until, 8)
    assert sum("a training step" in event.text for event in events if isinstance(event, Notice)) == 2


# Files that cannot be resumed from.


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"hflip": True}, {"batch_size": 16}, {"metric": "balanced"}, {"subject": "dropout"}]
)
def test_a_checkpoint_of_another_training_costs_a_warning_and_a_start_from_scratch(digits16, tmp_path, other):
    path, events = tmp_path / "a.pt", []
    leg(digits16, until=64, checkpoint=path, **other)
    score = leg(digits16, until=96, checkpoint=path, emit=events.append)
    assert comparable(score) == comparable(leg(digits16, until=96))
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert notice.level == "warning"
    assert "a.pt belongs to another training" in notice.text
    assert content(path)["state"]["images_seen"] == 96


def test_a_checkpoint_that_is_too_far_on_costs_a_warning_and_a_start_from_scratch(digits16, tmp_path):
    path, events = tmp_path / "a.pt", []
    leg(digits16, until=96, checkpoint=path)
    score = leg(digits16, until=64, checkpoint=path, emit=events.append)
    assert comparable(score) == comparable(leg(digits16, until=64))
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert all(part in notice.text for part in ("a.pt", "96", "64"))


@pytest.mark.parametrize("tear", [lambda b: b[: len(b) // 2], lambda b: b[:-1], lambda b: b"", lambda b: b"\0" * 999])
def test_a_torn_checkpoint_costs_a_warning_and_a_start_from_scratch(digits16, tmp_path, tear):
    path, events = tmp_path / "a.pt", []
    leg(digits16, until=64, checkpoint=path)
    path.write_bytes(tear(path.read_bytes()))
    score = leg(digits16, until=96, checkpoint=path, emit=events.append)
    assert comparable(score) == comparable(leg(digits16, until=96))
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert notice.level == "warning"
    assert notice.text.startswith("the checkpoint a.pt cannot be read (")


def test_a_file_that_is_no_checkpoint_of_ours_is_not_run(tmp_path):
    """Pickles may run code; only tensors and plain values are read."""

    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    events = []
    torch.save({"name": NAME, "state": Trap()}, tmp_path / "a.pt")
    assert load_checkpoint(tmp_path / "a.pt", NAME, 10, events.append) == {}
    assert not (tmp_path / "sprung").exists()
    assert len(events) == 1


# Files that cannot be written.


def test_a_checkpoint_in_a_folder_that_is_not_there_yet_is_written(tmp_path):
    path = tmp_path / "new" / "folder" / "a.pt"
    save_checkpoint(path, NAME, {"images_seen": 5})
    assert load_checkpoint(path, NAME, 5, lambda event: None) == {"images_seen": 5}
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_that_cannot_be_written_costs_the_checkpoint_alone_and_is_told_once(digits16, tmp_path, events):
    (tmp_path / "file").write_text("I am no folder")
    path = tmp_path / "file" / "a.pt"
    without = leg(digits16, until=32)
    for _ in range(2):
        score = leg(digits16, until=32, checkpoint=path, emit=events.append)
        assert (score["value"], score["loss"]) == (without["value"], without["loss"])
    (text,) = [event.text for event in events if isinstance(event, Notice)]
    assert text.startswith(f"cannot write the checkpoint {path}: ")
    assert "Free some space." in text
    assert [file.name for file in tmp_path.rglob("*") if file.name.endswith((".pt", ".tmp"))] == []


def test_a_full_disk_leaves_the_old_checkpoint_and_no_rest(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, NAME, {"images_seen": 5})
    said = run_on_full_disk(
        """
        import json, sys
        from pathlib import Path
        import torch
        from hilo_nas.errors import StorageError
        from hilo_nas.proxy.checkpoints import save_checkpoint
        # full
        try:
            save_checkpoint(
                Path(sys.argv[1]), json.loads(sys.argv[2]), {"images_seen": 6, "model": torch.zeros(100_000)}
            )
        except StorageError as error:
            print(error)
        """,
        path,
        json.dumps(NAME),
    )
    assert said.startswith(f"cannot write the checkpoint {path}: ")
    assert load_checkpoint(path, NAME, 5, lambda event: None) == {"images_seen": 5}
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_no_rest(tmp_path, monkeypatch):
    def save(content, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "a.pt", NAME, {"images_seen": 5})
    assert list(tmp_path.iterdir()) == []


def test_what_a_litv2_receives_is_as_before_batch_norms_of_others_were_estimated(digits16):
    torch.manual_seed(0)
    if nn.init.trunc_normal_(torch.empty(1)).item() != pytest.approx(0.3058, abs=1e-3):
        pytest.skip(f"torch {torch.__version__} draws other initial weights than the version of the stored score")
    score = leg(digits16)
    assert score["plan_hash"] == "5d171eb831d3"
    assert score["value"] == pytest.approx(0.13333333333333333, abs=0.02)
    assert score["loss"] == pytest.approx(2.305908493200938, abs=2e-3)  # bit for bit on the machine that gave it


@pytest.mark.parametrize(("subject", "is_taken_anew"), [("litv2", False), ("dropout", True)])
def test_batch_norms_are_estimated_for_a_score_of_other_families_alone(digits16, subject, is_taken_anew):
    under_way = training(digits16, subject)
    for _ in under_way.steps(96):
        pass
    before = {name: value.clone() for name, value in under_way._average.module.state_dict().items()}
    seen = []
    for module in under_way._average.module.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda module, inputs: seen.append(module.training))
    generator = torch.get_rng_state()
    first, second = under_way.evaluate(), under_way.evaluate()
    assert any(seen) == is_taken_anew
    assert not under_way._average.module.training
    assert_equal(dict(under_way._average.module.state_dict()), before)  # the running ones are put back
    assert torch.equal(torch.get_rng_state(), generator)  # dropout drew nothing
    assert first.loss == second.loss


def test_the_score_of_another_family_has_a_name_of_its_own(digits16):
    names = {subject: leg(digits16, subject=subject, until=BATCH)["plan_hash"] for subject in SUBJECTS}
    assert names["litv2"] == plan().hash(digits16.content_hash)
    assert names["dropout"] == plan().baseline_hash(digits16.content_hash) != names["litv2"]
