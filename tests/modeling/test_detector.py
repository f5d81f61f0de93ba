"""The detector as a whole: against detectron2's own, and what the paper changes in it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detectron2.structures import BitMasks, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import Tensor

from pipeline_steps.common.errors import UserError
from pipeline_steps.modeling.build import build_detector, build_from_config, detector_config
from pipeline_steps.modeling.facts import BatchFacts, sample_labels
from pipeline_steps.modeling.roi_heads import mask_targets
from tests.modeling.samples import CATEGORIES, sample, tiny_recipe


def losses_of(model: torch.nn.Module, samples: list[dict[str, Any]], seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    with EventStorage(0):
        return model(samples)


def seeded(recipe: Any, name: str = "basic", tail: Tensor | None = None, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return build_detector(recipe, name, CATEGORIES, tail)


class TestAgainstDetectron2:
    @pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
    def test_losses_and_detections_equal_those_of_detectron2s_mask_rcnn(self, loss):
        """Same weights, same random draws, nothing of the paper switched on."""
        options = ["LVIS.CANONICAL_BOX_SIZE 224"]
        recipe = tiny_recipe(loss=loss, detector_options=options)
        ours = seeded(recipe)
        cfg = detector_config(recipe, "basic", CATEGORIES).clone()
        cfg.defrost()
        cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
        cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
        cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
        cfg.MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE = loss == "sigmoid"
        theirs = build_from_config(cfg)
        state = dict(ours.state_dict())
        if loss == "sigmoid":  # detectron2 has a background logit also there, which its loss leaves out
            for key in ("weight", "bias"):
                name = f"roi_heads.box_predictor.cls_score.{key}"
                state[name] = torch.cat([state[name], torch.zeros_like(state[name][:1])])
        theirs.load_state_dict(state)

        samples = [sample(seed) for seed in range(3)]
        for_theirs = [{key: s[key] for key in ("image", "instances", "height", "width")} for s in samples]
        mine, reference = losses_of(ours, samples), losses_of(theirs, for_theirs)
        assert mine.keys() == reference.keys()
        for key in mine:
            torch.testing.assert_close(mine[key], reference[key], rtol=1e-5, atol=1e-7)
        sum(mine.values()).backward()
        sum(reference.values()).backward()
        gradients = dict(theirs.named_parameters())
        for name, parameter in ours.named_parameters():
            expected = gradients[name].grad
            if parameter.shape != expected.shape:
                expected = expected[:-1]
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5, msg=name)

        ours.eval(), theirs.eval()
        with torch.no_grad():
            mine, reference = ours(samples[:1])[0]["instances"], theirs(for_theirs[:1])[0]["instances"]
        assert len(mine) == len(reference) > 0
        assert torch.equal(mine.pred_boxes.tensor, reference.pred_boxes.tensor)
        assert torch.equal(mine.scores, reference.scores)
        assert torch.equal(mine.pred_masks, reference.pred_masks)

    def test_mask_targets_equal_detectron2s_for_bitmaps_and_polygons(self):
        instances = sample(1)["instances"]
        boxes = instances.gt_boxes.tensor[[0, 2, 2, 4]] + torch.tensor([-2.0, 1.0, 3.0, 2.5])
        index = torch.tensor([0, 2, 2, 4])
        bitmaps: BitMasks = instances.gt_masks
        assert torch.equal(mask_targets(bitmaps, index, boxes, 28), bitmaps[index].crop_and_resize(boxes, 28))
        polygons = PolygonMasks([[[x1, y1, x2, y1, x2, y2]] for x1, y1, x2, y2 in instances.gt_boxes.tensor.tolist()])
        assert torch.equal(mask_targets(polygons, index, boxes, 28), polygons[index].crop_and_resize(boxes, 28))


class TestSampleLabels:
    def test_draws_the_positive_fraction_and_fills_up_with_negatives(self):
        labels = torch.tensor([5] * 100 + [2] * 50 + [-1] * 30)
        ((positive, negative),) = sample_labels([labels], 40, 0.25, 5, [None])
        assert (labels[positive] == 2).all()
        assert (labels[negative] == 5).all()
        assert (len(positive), len(negative)) == (10, 30)
        assert len(set(positive.tolist())) == 10
        assert len(set(negative.tolist())) == 30

    def test_few_positives_leave_their_places_to_negatives(self):
        labels = torch.tensor([5] * 100 + [2] * 3)
        ((positive, negative),) = sample_labels([labels], 40, 0.25, 5, [None])
        assert (len(positive), len(negative)) == (3, 37)

    def test_same_seed_draws_the_same_whatever_the_process_drew_before(self):
        labels = torch.tensor([5] * 100 + [2] * 50)
        draws = []
        for before in range(2):
            torch.rand(before + 1)
            draws += sample_labels([labels], 40, 0.25, 5, [torch.Generator().manual_seed(9)])
        assert torch.equal(draws[0][0], draws[1][0])
        assert torch.equal(draws[0][1], draws[1][1])


class TestLosses:
    def test_scores_start_at_the_prior(self):
        model = seeded(tiny_recipe(prior_probability=0.02))
        logits = model.roi_heads.box_predictor(torch.zeros(1, 192))[0]
        torch.testing.assert_close(model.scores(logits), torch.full((1, CATEGORIES), 0.02))

    def test_softmax_scores_leave_background_out(self):
        model = seeded(tiny_recipe(loss="softmax"))
        logits = torch.randn(4, CATEGORIES + 1)
        torch.testing.assert_close(model.scores(logits), logits.softmax(1)[:, :CATEGORIES])

    def test_box_head_loss_scale_scales_both_box_losses_and_nothing_else(self):
        samples = [sample(seed) for seed in range(2)]
        plain = losses_of(seeded(tiny_recipe()), samples)
        doubled = losses_of(seeded(tiny_recipe(box_head_loss_scale=2.0)), samples)
        for name in plain:
            factor = 2 if name in ("loss_cls", "loss_box_reg") else 1
            torch.testing.assert_close(doubled[name], plain[name] * factor, msg=name)

    def test_equalization_loss_needs_the_frequencies(self):
        with pytest.raises(UserError, match="rare and common"):
            losses_of(seeded(tiny_recipe(loss="eql")), [sample(0)])

    def test_frequencies_of_another_number_of_categories_are_refused(self):
        with pytest.raises(UserError, match="3 categories"):
            seeded(tiny_recipe(loss="eql"), tail=torch.ones(3, dtype=torch.bool))

    def gradient_of_classifier(self, model: Any, samples: list[dict[str, Any]]) -> Tensor:
        losses_of(model, samples)["loss_cls"].backward()
        return model.roi_heads.box_predictor.cls_score.bias.grad

    def only_foreground(self, model: Any) -> None:
        model.roi_heads.positive_fraction = 1.0
        model.roi_heads.batch_size_per_image = 5

    def test_equalization_spares_tail_categories_that_the_image_does_not_judge(self):
        tail = torch.arange(CATEGORIES) >= 5
        model = seeded(tiny_recipe(loss="eql"), tail=tail)
        self.only_foreground(model)
        item = sample(0)
        item["judged"][7] = True  # verified absent
        gradient = self.gradient_of_classifier(model, [item])
        assert (gradient[tail & ~item["judged"]] == 0).all()
        assert (gradient[~tail] != 0).all()
        assert gradient[7] > 0

    def test_without_judged_categories_negatives_are_spared_too(self):
        tail = torch.arange(CATEGORIES) >= 5
        model = seeded(tiny_recipe(loss="eql", judged_categories=False), tail=tail)
        self.only_foreground(model)
        item = sample(0)
        absent = next(j for j in range(5, CATEGORIES) if j not in item["instances"].gt_classes.tolist())
        item["judged"][absent] = True
        assert self.gradient_of_classifier(model, [item])[absent] == 0

    @pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
    def test_unknown_categories_get_no_gradient_at_all(self, loss):
        model = seeded(tiny_recipe(loss=loss))
        item = sample(0, has_masks=False)
        item["known"] = item["judged"].clone()
        gradient = self.gradient_of_classifier(model, [item])[:CATEGORIES]
        assert (gradient[~item["known"]] == 0).all()
        assert (gradient[item["known"]] != 0).all()

    def test_known_categories_of_another_image_keep_their_gradient(self):
        model = seeded(tiny_recipe())
        closed = sample(0, known=torch.zeros(CATEGORIES, dtype=torch.bool))
        assert (self.gradient_of_classifier(model, [closed, sample(1)]) != 0).all()

    def test_region_of_weight_zero_over_everything_leaves_no_background_loss(self):
        """Every box of the image meets one of its regions: one region per proposal, found by a first pass."""
        model = seeded(tiny_recipe(coco_ignore={"enabled": True, "iou": 0.5}))
        item = sample(0, objects=0)
        seen: list[Tensor] = []
        original = model.roi_heads.label_and_sample_proposals

        def spy(*arguments: Any) -> Any:
            result = original(*arguments)
            seen.append(result[0][0].proposal_boxes.tensor)
            return result

        model.roi_heads.label_and_sample_proposals = spy
        full = losses_of(model, [item])["loss_cls"]
        regions = seen[0]
        assert full > 0
        item["region_boxes"], item["region_weights"] = regions, torch.full((len(regions),), 0.5)
        torch.testing.assert_close(losses_of(model, [item])["loss_cls"], full / 2)
        item["region_weights"] = torch.zeros(len(regions))
        assert losses_of(model, [item])["loss_cls"] == 0

    def test_group_over_the_whole_image_leaves_no_background_loss(self):
        """No proposal has a large IoU with it; all lie in it."""
        model = seeded(tiny_recipe(coco_ignore={"enabled": False, "iou": 0.5}))
        item = sample(0, objects=0)
        item["region_boxes"], item["region_weights"] = torch.tensor([[0.0, 0, 96, 96]]), torch.zeros(1)
        item["region_groups"] = torch.tensor([False])
        assert losses_of(model, [item])["loss_cls"] > 0
        item["region_groups"] = torch.tensor([True])
        assert losses_of(model, [item])["loss_cls"] == 0

    def test_class_specific_regression_trains_the_columns_of_the_objects_categories_only(self):
        recipe = tiny_recipe(detector_options=["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG False"])
        model = seeded(recipe)
        item = sample(0)
        losses_of(model, [item])["loss_box_reg"].backward()
        gradient = model.roi_heads.box_predictor.bbox_pred.bias.grad.view(CATEGORIES, 4)
        touched = gradient.abs().sum(1) > 0
        assert touched.nonzero()[:, 0].tolist() == sorted(set(item["instances"].gt_classes.tolist()))

    def test_first_loss_is_near_its_expectation_at_the_prior(self):
        p = 0.01
        loss = losses_of(seeded(tiny_recipe(prior_probability=p)), [sample(0, objects=0)])["loss_cls"]
        assert loss.item() == pytest.approx(-CATEGORIES * math.log(1 - p), rel=0.3)


class TestDivergence:
    @pytest.mark.parametrize("objects", [5, 0])
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_proposals_that_are_not_finite_make_the_losses_nan_and_raise_nothing(self, value, objects):
        """detectron2 raises FloatingPointError here, in one process only."""
        model = seeded(tiny_recipe(detector_options=["MODEL.ROI_MASK_HEAD.NORM 'BN'"]))
        with torch.no_grad():
            model.proposal_generator.rpn_head.anchor_deltas.bias[0] = value
        losses = losses_of(model, [sample(seed, objects=objects) for seed in range(2)])
        assert losses["loss_rpn_cls"].isnan()
        sum(losses.values()).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_the_next_batch_is_not_blamed(self):
        model = seeded(tiny_recipe())
        bias = model.proposal_generator.rpn_head.anchor_deltas.bias
        with torch.no_grad():
            bias[0] = math.inf
            losses_of(model, [sample(0)])
            bias[0] = 0
        assert all(value.isfinite() for value in losses_of(model, [sample(0)]).values())


class TestBoxOnlyImages:
    def test_mask_loss_of_a_mixed_batch_is_that_of_its_images_with_masks(self):
        recipe = tiny_recipe()
        model = seeded(recipe)
        model.backbone.eval()  # batch statistics would tie the images together
        with_masks = sample(0, sampling_seed=1)
        box_only = sample(1, has_masks=False, sampling_seed=2)
        alone = losses_of(model, [with_masks])["loss_mask"]
        mixed = losses_of(model, [box_only, with_masks])["loss_mask"]
        torch.testing.assert_close(mixed, alone)

    @pytest.mark.parametrize("norm", ["", "BN"])
    @pytest.mark.parametrize("objects", [5, 0])
    def test_batch_without_masks_has_a_zero_mask_loss_that_reaches_every_parameter(self, norm, objects):
        model = seeded(tiny_recipe(detector_options=[f"MODEL.ROI_MASK_HEAD.NORM '{norm}'"]))
        losses = losses_of(model, [sample(seed, objects=objects, has_masks=False) for seed in range(2)])
        assert losses["loss_mask"].item() == 0
        sum(losses.values()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        for name, parameter in model.roi_heads.mask_head.named_parameters():
            assert (parameter.grad == 0).all(), name

    def test_masks_that_are_there_by_mistake_are_not_trained_on(self):
        item = sample(0, has_masks=True)
        item["has_masks"] = False
        assert losses_of(seeded(tiny_recipe()), [item])["loss_mask"].item() == 0


class TestFacts:
    def test_a_plain_detectron2_sample_judges_its_own_categories(self):
        plain = {key: sample(0)[key] for key in ("image", "instances")}
        facts = BatchFacts.from_samples([plain], CATEGORIES, torch.device("cpu"))
        assert torch.equal(facts.judged[0], sample(0)["judged"])
        assert facts.known is None
        assert facts.has_masks == (True,)

    def test_losses_with_a_sampling_seed_do_not_depend_on_the_rest_of_the_batch(self):
        model = seeded(tiny_recipe())
        model.backbone.eval()
        first, second = sample(0, sampling_seed=11), sample(1, sampling_seed=12)
        together = losses_of(model, [first, second], seed=1)
        apart = [losses_of(model, [item], seed=seed) for seed, item in enumerate((first, second))]
        for name in ("loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"):
            torch.testing.assert_close(together[name], (apart[0][name] + apart[1][name]) / 2, msg=name)


class TestPiecesOfTesting:
    @pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
    @pytest.mark.parametrize("agnostic", [True, False])
    def test_pieces_put_together_are_the_detectors_own_inference(self, loss, agnostic):
        from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference

        option = f"MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG {agnostic}"
        model = seeded(tiny_recipe(loss=loss, detector_options=[option])).eval()
        with torch.no_grad():
            images = model.preprocess_image([sample(0), sample(1)])
            expected = model.inference([sample(0), sample(1)], do_postprocess=False)
            features = model.extract_features(images)
            proposals = model.propose(images, features)
            counts = [len(image) for image in proposals]
            logits, deltas = model.roi_heads.box_predictions(features, proposals)
            scores = model.scores(logits)
            boxes = model.decode(deltas, torch.cat([image.proposal_boxes.tensor for image in proposals]))
            assert scores.shape == (sum(counts), CATEGORIES)
            assert boxes.shape == (sum(counts), 4 if agnostic else 4 * CATEGORIES)
            padded = torch.nn.functional.pad(scores, (0, 1)).split(counts)
            results, _ = fast_rcnn_inference(boxes.split(counts), padded, images.image_sizes, 0.0, 0.5, 300)
            masks = model.roi_heads.soft_masks(features, [image.pred_boxes.tensor for image in results])
        for result, soft, own in zip(results, masks, expected):
            assert torch.equal(result.pred_boxes.tensor, own.pred_boxes.tensor)
            assert torch.equal(soft, own.pred_masks[:, 0])

    def test_soft_masks_of_no_boxes_are_no_masks(self):
        model = seeded(tiny_recipe()).eval()
        with torch.no_grad():
            features = model.extract_features(model.preprocess_image([sample(0), sample(1)]))
            masks = model.roi_heads.soft_masks(features, [torch.zeros(0, 4), torch.tensor([[0.0, 0, 30, 30]])])
        assert [tuple(image.shape) for image in masks] == [(0, 28, 28), (1, 28, 28)]
