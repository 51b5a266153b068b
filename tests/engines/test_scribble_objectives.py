"""Objectives of learning from scribbles, and the step that carries them out."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.networks.nets import BasicUNet, UNet
from torch import nn

from common.data import DatasetError
from common.engines import (
    ContextMasking,
    DualDecoderObjective,
    ObjectiveUpdate,
    ScribbleObjective,
    SliceDataset,
)
from common.losses import ConsistencyLoss, ContinuousPseudoLabelLoss, GatedCRFLoss, PartialCrossEntropy
from common.networks import DualDecoderUNet


def make_batch(batch_size=2, size=(16, 16), num_classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scribble = torch.full((batch_size, 1, *size), 255)
    scribble[:, :, 2, 2:9], scribble[:, :, 8, 4:8], scribble[:, :, 12, 3] = 0, 1, 2
    distance = 20 * torch.rand((batch_size, num_classes, *size), generator=generator)
    return {
        "image": torch.rand((batch_size, 1, *size), generator=generator),
        "scribble": scribble,
        "distance": distance,
    }


def make_network(spatial_dims=2):
    torch.manual_seed(0)
    return BasicUNet(spatial_dims, 1, 3, (4, 4, 4, 4, 4, 4), norm="batch", upsample="nontrainable")


def make_maco(**options):
    options = {"masking": ContextMasking(4, 0.5), "consistency_loss": ConsistencyLoss(), **options}
    return ScribbleObjective(PartialCrossEntropy(), pseudo_label_loss=ContinuousPseudoLabelLoss(4.5), **options)


class TestScribbleObjective:
    def test_parts_weights_and_ramp(self):
        batch = make_batch()
        objective = make_maco(pseudo_label_weight=0.25, masking_weight=2.0, ramp_fraction=0.4)
        predictions = objective.predict(make_network(), batch)
        parts = objective.losses(predictions, batch, progress=0.1)
        clean, masked, mask = (predictions[key] for key in ("pred", "masked", "mask"))
        expected = {
            "supervised": PartialCrossEntropy()(clean, batch["scribble"]),
            "pseudo_label": 0.25 * ContinuousPseudoLabelLoss(4.5)(clean, batch["distance"]),
            "masked_supervised": 2.0 * 0.25 * PartialCrossEntropy()(masked, batch["scribble"]),
            "consistency": 2.0 * 0.25 * ConsistencyLoss()(masked, clean, mask),
        }
        assert parts.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(parts[name], value)
        late = objective.losses(predictions, batch, progress=0.4)
        torch.testing.assert_close(late["consistency"], 4 * parts["consistency"])
        assert objective.losses(predictions, batch, progress=0.0)["consistency"] == 0

    def test_acceptance_v_the_clean_view_gets_no_gradient_from_the_consistency(self):
        class Recorder(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Conv2d(1, 3, 1)
                self.logits = []

            def forward(self, image):
                self.logits.append(self.head(image))
                self.logits[-1].retain_grad()
                return self.logits[-1]

        network, batch = Recorder(), make_batch()
        objective = make_maco(ramp_fraction=0.0)
        predictions = objective.predict(network, batch)
        objective.losses(predictions, batch, 1.0)["consistency"].backward()
        clean, masked = network.logits
        assert clean.grad is None
        assert masked.grad.abs().max() > 0.0

    def test_running_averages_are_those_of_the_clean_view(self):
        network, alone, batch = make_network(), make_network(), make_batch()
        alone.load_state_dict(network.state_dict())
        torch.testing.assert_close(make_maco().predict(network, batch)["pred"], alone(batch["image"]))
        for (name, buffer), expected in zip(network.named_buffers(), alone.buffers(), strict=True):
            assert torch.equal(buffer, expected), name
        assert all(m.track_running_stats for m in network.modules() if isinstance(m, nn.BatchNorm2d))

    @pytest.mark.parametrize("attention", ["scribble", "uniform", "uncertainty", "cpl"])
    def test_attentions_leave_no_trace_in_the_network(self, attention):
        network, batch = make_network(), make_batch()
        objective = make_maco(masking=ContextMasking(4, 0.5, attention))
        predictions = objective.predict(network, batch)
        assert network.training
        assert predictions["mask"].float().mean() == 0.5
        trackers = [m.num_batches_tracked.item() for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert set(trackers) == {1}

    def test_acceptance_iv_slices_without_strokes_give_no_nan(self):
        batch = make_batch()
        batch["scribble"][:] = 255
        batch["distance"][:] = torch.inf
        network = make_network()
        objective = make_maco(ramp_fraction=0.0)
        parts = objective.losses(objective.predict(network, batch), batch, 1.0)
        assert parts["supervised"] == parts["pseudo_label"] == parts["masked_supervised"] == 0
        sum(parts.values()).backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())

    def test_parts_that_are_left_out(self):
        batch = make_batch()
        plain = ScribbleObjective(PartialCrossEntropy())
        assert not plain.needs_distances
        assert plain.generators == {}
        assert plain.losses(plain.predict(make_network(), batch), batch, 0.5).keys() == {"supervised"}
        crf = ScribbleObjective(PartialCrossEntropy(), regularizer=GatedCRFLoss(radius=1), regularizer_weight=0.5)
        predictions = crf.predict(make_network(), batch)
        parts = crf.losses(predictions, batch, 0.5)
        torch.testing.assert_close(
            parts["regularizer"], 0.5 * GatedCRFLoss(radius=1)(predictions["pred"], batch["image"])
        )

    def test_volumes(self):
        generator = torch.Generator().manual_seed(0)
        shape = (2, 1, 16, 16, 16)
        scribble = torch.full(shape, 255)
        scribble[:, :, 4, 4, 2:9], scribble[:, :, 8, 8, 2:9] = 0, 1
        batch = {"image": torch.rand(shape, generator=generator), "scribble": scribble}
        batch["distance"] = 9 * torch.rand((2, 3, 16, 16, 16), generator=generator)
        objective = make_maco(masking=ContextMasking((8, 8, 4)), regularizer=GatedCRFLoss(radius=1))
        parts = objective.losses(objective.predict(make_network(3), batch), batch, 0.9)
        assert torch.isfinite(torch.stack(list(parts.values()))).all()

    def test_refusals(self):
        with pytest.raises(ValueError, match="compares the image with its masked view; give masking too"):
            ScribbleObjective(PartialCrossEntropy(), consistency_loss=ConsistencyLoss())
        with pytest.raises(ValueError, match="'cpl' takes its weights from continuous pseudo labels"):
            ScribbleObjective(PartialCrossEntropy(), masking=ContextMasking(attention="cpl"))


class TestDualDecoder:
    def test_losses_by_hand(self):
        batch = make_batch(batch_size=1, size=(16, 16))
        objective = DualDecoderObjective(PartialCrossEntropy(), pseudo_label_weight=0.5)
        own = torch.full((1, 3, 16, 16), -20.0)
        own[:, 1] = 20.0
        parts = objective.losses({"pred": own, "auxiliary": own.clone()}, batch, 0.0)
        # both decoders agree on class 1 everywhere; of the absent classes Dice, smoothed by 1e-5, is 1
        assert parts["pseudo_label"].item() == pytest.approx(0, abs=1e-4)
        torch.testing.assert_close(parts["supervised"], PartialCrossEntropy()(own, batch["scribble"]))

    def test_only_the_second_decoder_sees_dropout_and_the_u_net_is_unchanged(self):
        network = make_network().eval()
        dual = DualDecoderUNet(network, dropout=0.5).eval()
        image = torch.rand(1, 1, 32, 48)
        own, auxiliary = dual(image)
        torch.testing.assert_close(own, network(image))
        assert own.shape == auxiliary.shape
        assert not torch.allclose(own, auxiliary)  # it starts from weights of its own
        dual.train()
        for module in dual.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        first, second = dual(image), dual(image)
        torch.testing.assert_close(first[0], second[0])
        assert not torch.allclose(first[1], second[1])

    def test_other_networks_are_refused(self):
        with pytest.raises(TypeError, match="second decoder can be added to MONAI's BasicUNet only, got UNet"):
            DualDecoderObjective(PartialCrossEntropy()).extend(UNet(2, 1, 2, (4, 8), (2,)))


class TestObjectiveUpdate:
    def make_trainer(self, objective, epochs=2):
        network = make_network()
        items = [{key: value[0] for key, value in make_batch(1, seed=i).items()} | {"case": f"{i}"} for i in range(4)]
        return SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=epochs,
            train_data_loader=DataLoader(Dataset(items), batch_size=2),
            network=network,
            optimizer=torch.optim.SGD(network.parameters(), 0.01),
            loss_function=objective.losses,
            iteration_update=ObjectiveUpdate(objective),
            decollate=False,
            optim_set_to_none=True,
        )

    def test_events_of_monai_in_their_order_and_progress(self):
        progress = []

        class Objective(ScribbleObjective):
            def losses(self, predictions, batch, share):
                progress.append(share)
                return super().losses(predictions, batch, share)

        fired = []
        trainer = self.make_trainer(Objective(PartialCrossEntropy()))
        for event in IterationEvents:
            if event in trainer._allowed_events:
                trainer.add_event_handler(event, lambda engine, name: fired.append(name), event.value)
        outputs = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.append(dict(engine.state.output)))
        trainer.run()
        assert fired[:4] == ["forward_completed", "loss_completed", "backward_completed", "model_completed"]
        assert len(fired) == 16
        assert progress == [0.0, 0.25, 0.5, 0.75]
        assert outputs[0].keys() == {"image", "label", "pred", "loss", "losses"}
        assert outputs[0]["pred"].shape == (2, 3, 16, 16)
        assert not outputs[0]["losses"]["supervised"].requires_grad

    def test_one_step_equals_a_step_by_hand(self):
        trainer = self.make_trainer(ScribbleObjective(PartialCrossEntropy()), epochs=1)
        by_hand = make_network().train()
        optimizer = torch.optim.SGD(by_hand.parameters(), 0.01)
        trainer.run()
        for start in (0, 2):
            batches = [make_batch(1, seed=i) for i in (start, start + 1)]
            loss = PartialCrossEntropy()(
                by_hand(torch.cat([b["image"] for b in batches])), torch.cat([b["scribble"] for b in batches])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for ours, theirs in zip(trainer.network.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_mixed_precision(self):
        objective = make_maco()
        network = make_network().cuda()
        items = [{key: value[0] for key, value in make_batch(1, seed=i).items()} for i in range(4)]
        trainer = SupervisedTrainer(
            device=torch.device("cuda"),
            max_epochs=2,
            train_data_loader=DataLoader(Dataset(items), batch_size=2),
            network=network,
            optimizer=torch.optim.SGD(network.parameters(), 0.01),
            loss_function=objective.losses,
            iteration_update=ObjectiveUpdate(objective),
            decollate=False,
            amp=True,
        )
        trainer.run()
        assert all(torch.isfinite(p).all() for p in network.parameters())


class TestSliceDataset:
    def make_volumes(self, drawn=(1, 3)):
        scribble = torch.full((1, 4, 5, 6), 255)
        for index in drawn:
            scribble[0, 1, 1, index] = 0
        affine = torch.diag(torch.tensor([2.0, 3.0, 8.0, 1.0], dtype=torch.float64))
        image = torch.arange(120.0).view(1, 4, 5, 6)
        items = {"image": MetaTensor(image, affine=affine), "scribble": MetaTensor(scribble, affine=affine)}
        return Dataset([{**items, "case": "a"}, {**items, "case": "b"}])

    def test_annotated_slices_with_their_pixel_size(self, caplog):
        volumes = self.make_volumes()
        with caplog.at_level(logging.INFO):
            slices = SliceDataset(volumes, None)
        assert "4 of 12 slices are used" in caplog.text
        assert [slices[i]["case"] for i in range(len(slices))] == ["a", "a", "b", "b"]
        item = slices[1]
        np.testing.assert_array_equal(item["image"], volumes[0]["image"][..., 3])
        assert item["image"].shape == (1, 4, 5)
        assert item["scribble"].pixdim.tolist() == [2.0, 3.0]
        assert len(SliceDataset(volumes, None, annotated_only=False)) == 12

    def test_another_axis_and_a_transform(self):
        slices = SliceDataset(self.make_volumes(), lambda item: item["image"].pixdim.tolist(), slice_axis=0)
        assert len(slices) == 2  # row 1 of each
        assert slices[0] == [3.0, 8.0]

    def test_refusals(self):
        with pytest.raises(DatasetError, match=r"a: must have strokes in 'scribble'; found none\. Remedy: draw some"):
            SliceDataset(self.make_volumes(()), None)
        flat = Dataset([{"image": torch.zeros(1, 4, 4), "scribble": torch.zeros(1, 4, 4), "case": "a"}])
        with pytest.raises(ValueError, match=r"a: slices are taken from volumes of shape \(1, X, Y, Z\), found"):
            SliceDataset(flat, None)
