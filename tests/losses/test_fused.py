"""The fast form against the plain formulas: every option, layout and precision, compiled and in chunks, and under autograd's demands."""

from __future__ import annotations

import itertools
import logging

import pytest
import torch

from segfocal.losses import FocalLoss, backend, kernels

CASES = [
    ("binary", {}),
    ("binary", {"alpha": 0.75, "reduced_threshold": 0.4, "normalized": True}),
    ("binary", {"gamma": [0.5]}),
    ("multilabel", {"alpha": [0.1, 0.5, 0.9], "class_weights": [1.0, 2.0, 0.5]}),
    ("multilabel", {"gamma": [0.0, 1.0, 2.5], "reduced_threshold": 0.6, "reduced_form": "continuous"}),
    ("multilabel", {"label_smoothing": 0.1, "normalized": True}),
    ("multiclass", {}),
    ("multiclass", {"alpha": [0.5, 1.0, 2.5], "reduced_threshold": 0.4, "normalized": True}),
    ("multiclass", {"gamma": [0.0, 0.5, 3.0], "denominator": "weights", "alpha": [0.5, 1.0, 2.5]}),
    ("multiclass", {"form": "sigmoid", "alpha": 0.25}),
    ("multiclass", {"form": "sigmoid", "alpha": 0.25, "label_smoothing": 0.2}),
    ("multiclass", {"form": "sigmoid", "alpha": [0.5, 1.0, 2.5], "normalized": True, "class_weights": [1.0, 2.0, 0.5]}),
]
COMPILED = [case for number, case in enumerate(CASES) if number not in (2, 9)]  # what takes no way of its own through compiled code
BOTH = [("eager", *case) for case in CASES] + [("compiled", *case) for case in COMPILED]
ROWS = (2, 3, 20)  # images, rows, columns: of less than nine columns Inductor makes no loop, as it does of those of photographs
SHAPES = {"none": (6,), "line": (2, 7), "plane": (2, 5, 6), "volume": (2, 3, 4, 5)}


def sample(mode, shape=ROWS, seed=0, dtype=torch.float64, ignored=0.2):
    generator = torch.Generator().manual_seed(seed)
    classes = 1 if mode == "binary" else 3
    images, space = shape[0], shape[1:]
    logits = 3 * torch.randn((images, classes, *space), generator=generator, dtype=torch.float64)
    target_shape = (images, classes, *space) if mode == "multilabel" else (images, *space)
    target = torch.randint(0, 3 if mode == "multiclass" else 2, target_shape, generator=generator)
    target = target.masked_fill(torch.rand(target_shape, generator=generator) < ignored, 255)
    return logits.to(dtype), target


def plain(loss, logits, target):
    """The same loss from the map of the plain formulas, by autograd."""
    labels_sum = loss.decision.terms(logits, aligned(loss, logits, target), loss.config.normalized).flatten(1).sum(1)
    counts = loss._counts(logits, aligned(loss, logits, target))
    return labels_sum.sum() / counts.sum()


def aligned(loss, logits, target):
    from segfocal.losses.targets import align

    return align(loss.mode, logits, target, loss.ignore_index, soft=True)


def gradient(function, logits):
    logits = logits.clone(memory_format=torch.preserve_format).requires_grad_()
    value = function(logits)
    (grad,) = torch.autograd.grad(value, logits)
    return value.detach(), grad


@pytest.mark.parametrize(("which", "mode", "options"), BOTH)
def test_value_and_gradient_are_those_of_the_plain_formulas(which, mode, options):
    logits, target = sample(mode)
    loss = FocalLoss(mode, ignore_index=255, backend=which, **options)
    exact = gradient(lambda x: plain(loss, x, target), logits)
    torch.testing.assert_close(gradient(lambda x: loss(x, target), logits), exact, rtol=1e-9, atol=1e-12)
    value, grad = gradient(lambda x: loss(x, target), logits.float())
    torch.testing.assert_close(value.double(), exact[0], rtol=2e-6, atol=0)
    torch.testing.assert_close(grad.double(), exact[1], rtol=2e-5, atol=2e-8)  # fp32, and exp as 2^(x log2 e) where compiled


@pytest.mark.parametrize("which", ["eager", "compiled"])
@pytest.mark.parametrize(("furthest", "error"), [(1.5, 3e-7), (20.0, 1e-6)])  # 2^(x log2 e) loses some digits of a large x
def test_cross_entropy_has_all_digits_of_its_precision(which, furthest, error):
    """The compiled one is a polynomial of our own."""
    logits = torch.linspace(-furthest, furthest, 4001)[:, None, None, None]
    focus, label = kernels.Focus(axis=1, gamma=0.0), torch.ones(4001, 1, 1, 1)
    value, _ = backend.run(kernels.sigmoid, focus, which, logits, label, None, None, None, None)
    exact = torch.nn.functional.softplus(-logits.double(), threshold=100.0)
    torch.testing.assert_close(value.double(), exact, rtol=error, atol=0)


def test_a_compiler_is_at_hand_where_these_tests_run():
    """Else the tests of compiled losses would be tests of chunks."""
    logits, target = sample("binary", dtype=torch.float32)
    gradient(lambda x: FocalLoss("binary", ignore_index=255, backend="compiled")(x, target), logits)  # as below
    assert not backend._broken


@pytest.mark.parametrize("size", [1, 7, 40, 10**6])
@pytest.mark.parametrize(("mode", "options"), CASES)
def test_the_size_of_a_chunk_does_not_matter(mode, options, size, monkeypatch):
    logits, target = sample(mode, (3, 4, 5))
    loss = FocalLoss(mode, ignore_index=255, backend="eager", **options)
    whole = gradient(lambda x: loss(x, target), logits)
    monkeypatch.setattr(backend, "chunk_size", lambda logits: size)
    torch.testing.assert_close(gradient(lambda x: loss(x, target), logits), whole, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("which", ["eager", "compiled"])
@pytest.mark.parametrize("mode", ["multilabel", "multiclass"])
def test_layouts_in_memory_do_not_matter_and_are_kept(mode, which):
    logits, target = sample(mode, dtype=torch.float32)
    loss = FocalLoss(mode, ignore_index=255, backend=which)
    expected = gradient(lambda x: loss(x, target), logits)
    last = logits.contiguous(memory_format=torch.channels_last)
    value, grad = gradient(lambda x: loss(x, target), last)
    torch.testing.assert_close((value, grad.contiguous()), expected)
    assert grad.is_contiguous(memory_format=torch.channels_last)
    strided = torch.stack([logits, logits], -1)[..., 0]
    torch.testing.assert_close(gradient(lambda x: loss(x, target.mT.contiguous().mT), strided), expected)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("mode", ["binary", "multilabel", "multiclass"])
def test_any_number_of_spatial_axes(mode, shape):
    logits, target = sample(mode, shape)
    loss = FocalLoss(mode, ignore_index=255, backend="eager")
    torch.testing.assert_close(gradient(lambda x: loss(x, target), logits), gradient(lambda x: plain(loss, x, target), logits))


@pytest.mark.parametrize("mode", ["binary", "multilabel", "multiclass"])
def test_nothing_at_all(mode):
    logits, target = sample(mode, (0, 4, 4))
    value, grad = gradient(lambda x: FocalLoss(mode)(x, target), logits)
    assert value == 0
    assert grad.shape == logits.shape


@pytest.mark.parametrize(("mode", "options"), CASES)
def test_gradcheck_and_the_gradient_of_the_gradient(mode, options):
    logits, target = sample(mode, (2, 2, 2))
    logits.requires_grad_()
    loss = FocalLoss(mode, ignore_index=255, **options)
    if not options.get("normalized"):  # its scale is held constant, which no difference quotient knows
        assert torch.autograd.gradcheck(lambda x: loss(x, target), logits)
        assert torch.autograd.gradgradcheck(lambda x: loss(x, target), logits)
    (grad,) = torch.autograd.grad(loss(logits, target), logits, create_graph=True)
    torch.testing.assert_close(grad, torch.autograd.grad(loss(logits, target), logits)[0])
    assert torch.autograd.grad(grad.square().sum(), logits)[0].isfinite().all()


@pytest.mark.parametrize("mode", ["binary", "multiclass"])
def test_a_graph_may_be_used_twice_under_any_upstream_gradient(mode):
    """Retained graphs, loss scaling, accumulation: nothing is kept that a first use could change."""
    logits, target = sample(mode)
    logits.requires_grad_()
    value = FocalLoss(mode, ignore_index=255)(logits, target)
    (once,) = torch.autograd.grad(value, logits, retain_graph=True)
    (scaled,) = torch.autograd.grad(value * 65536.0, logits, retain_graph=True)
    (again,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(scaled, once * 65536.0)
    assert torch.equal(again, once)


@pytest.mark.parametrize(
    ("which", "dtype", "gamma"),
    [
        *itertools.product(["eager"], [torch.float32, torch.bfloat16, torch.float16], [0.0, 0.25, 0.5, 1.0, 2.0, 5.0]),
        *itertools.product(["compiled"], [torch.float32], [0.0, 0.25, 0.5, 2.0]),  # each other code: a root, a square, any power
        *itertools.product(["compiled"], [torch.bfloat16, torch.float16], [0.25]),  # computed in fp32, whatever gamma is
    ],
)
def test_gradients_are_finite_to_the_ends_of_the_range(which, dtype, gamma):
    steps = torch.tensor([0.0, 1e-3, 1.0, 9.0, 17.0, 30.0, 90.0, 100.0, 1e3, 1e4])
    steps = torch.cat([steps, -steps])
    for mode, logits in (("binary", steps[None, None]), ("multiclass", torch.stack([steps, -steps, 0.5 * steps])[None, :, None])):
        for label in (0, 1):
            target = torch.full((1, 1, len(steps)), label)
            loss = FocalLoss(mode, gamma=gamma, backend=which)
            value, grad = gradient(lambda x, f=loss, t=target: f(x, t), logits.to(dtype))
            assert value.isfinite()
            assert value.dtype == torch.float32
            assert grad.isfinite().all()
            assert grad.dtype == dtype


@pytest.mark.parametrize(("which", "mode", "options"), BOTH)
def test_what_is_ignored_has_no_gradient_whatever_it_is(which, mode, options):
    logits, target = sample(mode, dtype=torch.float32)
    mask = (target == 255) if mode == "multilabel" else (target == 255).unsqueeze(1).expand_as(logits)
    loss = FocalLoss(mode, ignore_index=255, backend=which, **options)
    expected = gradient(lambda x: loss(x, target), logits)
    for junk in (float("nan"), float("inf"), -3e38):
        value, grad = gradient(lambda x: loss(x, target), logits.masked_fill(mask, junk))
        assert torch.equal(value, expected[0])
        assert torch.equal(grad, expected[1])
        assert grad[mask].eq(0).all()


def test_a_batch_may_be_split_where_the_denominator_is_one():
    for mode in ("binary", "multiclass", "multilabel"):
        logits, target = sample(mode, (4, 5, 6))
        loss = FocalLoss(mode, ignore_index=255, reduction="sum")
        parts = loss(logits[:1], target[:1]) + loss(logits[1:], target[1:])
        torch.testing.assert_close(loss(logits, target), parts)


@pytest.mark.parametrize("which", ["eager", "compiled"])
@pytest.mark.parametrize(("mode", "labels"), [("binary", [0, 2]), ("multiclass", [0, 7]), ("multiclass", [-1, 1]), ("multilabel", [0, 3])])
def test_labels_out_of_range_are_told_by_the_fast_form(mode, labels, which):
    logits, target = sample(mode, dtype=torch.float32)
    target.view(-1)[0] = labels[-1] if labels[-1] > 1 else labels[0]
    with pytest.raises(ValueError, match=r"the target holds (-1|2|3|7);"):
        FocalLoss(mode, ignore_index=255, backend=which)(logits.requires_grad_(), target)


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("label", [1.5, float("nan")])
def test_ids_are_whole_numbers(label, form):
    logits, target = sample("multiclass", ignored=0)
    target = target.double()
    target[0, 0, 0] = label
    with pytest.raises(ValueError, match=r"the target holds (1\.5|nan);"):
        FocalLoss("multiclass", form=form, ignore_index=255)(logits, target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_smoothed_labels_are_not_rounded_to_half_precision(dtype):
    logits, target = sample("binary", dtype=dtype, ignored=0)
    loss = FocalLoss("binary", label_smoothing=0.01, reduction="none")
    torch.testing.assert_close(loss(logits, target).double(), loss(logits.double(), target), rtol=1e-5, atol=1e-9)


def test_no_gradient_costs_none():
    logits, target = sample("multiclass", dtype=torch.float32)
    value = FocalLoss("multiclass", ignore_index=255)(logits, target)
    assert not value.requires_grad
    with torch.no_grad():
        assert torch.equal(FocalLoss("multiclass", ignore_index=255)(logits.requires_grad_(), target), value)


def test_small_batches_are_not_compiled_and_large_ones_are(monkeypatch):
    compiled = []
    monkeypatch.setattr(backend, "_compiled", lambda stage, focus, kind: compiled.append(stage.__name__) or (lambda *t: stage(focus, *t)))
    loss = FocalLoss("binary")
    loss(*sample("binary", (1, 64, 64), ignored=0, dtype=torch.float32))
    assert not compiled
    loss(*sample("binary", (1, 512, 512), ignored=0, dtype=torch.float32))
    assert compiled == ["_sigmoid"]
    FocalLoss("binary", backend="eager")(*sample("binary", (1, 512, 512), ignored=0, dtype=torch.float32))
    assert compiled == ["_sigmoid"]


def test_without_a_compiler_a_line_is_logged_once_and_chunks_are_used(monkeypatch, caplog):
    def broken(kernel, focus, kind):
        raise RuntimeError("no C++ compiler\nand a long story")

    monkeypatch.setattr(backend, "_compiled", broken)
    monkeypatch.setattr(backend, "_broken", set())
    logits, target = sample("multiclass", dtype=torch.float32)
    loss = FocalLoss("multiclass", ignore_index=255, backend="compiled")
    with caplog.at_level(logging.WARNING):
        value = loss(logits, target)
        loss(logits, target)
    torch.testing.assert_close(value, FocalLoss("multiclass", ignore_index=255, backend="eager")(logits, target))
    assert [record.message for record in caplog.records] == ["losses are not compiled on cpu, and run in chunks instead: no C++ compiler"]


def test_memory_that_runs_out_says_nothing_of_the_compiler(monkeypatch):
    def full(kernel, focus, kind):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(backend, "_compiled", full)
    monkeypatch.setattr(backend, "_broken", set())
    logits, target = sample("multiclass", dtype=torch.float32)
    with pytest.raises(torch.OutOfMemoryError):
        FocalLoss("multiclass", ignore_index=255, backend="compiled")(logits, target)
    assert not backend._broken


@pytest.fixture
def traced_alone(monkeypatch):
    """How often a function may be compiled is counted where it is traced: no machine code is needed to see it, which takes 4 s each."""
    compile_ = torch.compile

    def traced(function, fullgraph, options):
        return compile_(
            function, fullgraph=fullgraph, backend=lambda graph, inputs: graph.forward
        )  # another one each time, as with options

    monkeypatch.setattr(torch, "compile", traced)
    backend._compiled.cache_clear()
    yield
    backend._compiled.cache_clear()


@pytest.mark.usefixtures("traced_alone")
def test_many_settings_in_one_process_stay_compiled():
    """A sweep of gamma: torch gives up on a function that was compiled eight times."""
    logits, target = sample("binary", dtype=torch.float32)
    for step in range(10):
        FocalLoss("binary", gamma=step / 7, ignore_index=255, backend="compiled")(logits, target)
    assert not backend._broken


@pytest.mark.usefixtures("traced_alone")
def test_one_loss_that_sees_many_kinds_of_batches_stays_compiled():
    loss = FocalLoss("binary", backend="compiled")
    for shape in ((2, 8, 8), (1, 8, 9), (3, 1, 8), (2, 8, 1)):
        for dtype in (torch.float32, torch.bfloat16):
            logits, target = sample("binary", shape, dtype=dtype, ignored=0)
            for labels in (target, target.to(torch.uint8)):
                loss(logits, labels)
                with torch.inference_mode():
                    loss(logits + 0, labels + 0)
    assert not backend._broken


@pytest.mark.parametrize("mode", ["binary", "multiclass"])
def test_inside_a_compiled_step(mode):
    logits, target = sample(mode, dtype=torch.float32)
    loss = FocalLoss(mode, ignore_index=255)
    step = torch.compile(lambda x, t: loss(2 * x, t))
    torch.testing.assert_close(gradient(lambda x: step(x, target), logits), gradient(lambda x: loss(2 * x, target), logits))


def test_soft_labels_and_one_hot_ones():
    logits, target = sample("multiclass", ignored=0)
    one_hot = torch.nn.functional.one_hot(target, 3).permute(0, 3, 1, 2)
    for options in ({}, {"alpha": [0.5, 1.0, 2.5], "denominator": "weights"}, {"normalized": True, "gamma": [0.5, 1.0, 3.0]}):
        loss = FocalLoss("multiclass", **options)
        expected = gradient(lambda x, f=loss: f(x, target), logits)
        for labels in (one_hot, one_hot.float(), one_hot.double()):
            torch.testing.assert_close(gradient(lambda x, f=loss, t=labels: f(x, t), logits), expected)
    half = 0.3 * one_hot.double() + 0.7 * one_hot.roll(1, 1).double()
    mixed = 0.3 * loss_of(logits, target) + 0.7 * loss_of(logits, (target + 1) % 3)
    torch.testing.assert_close(loss_of(logits, half), mixed)
    logits, target = sample("binary", ignored=0)
    binary = FocalLoss("binary", alpha=0.75)
    torch.testing.assert_close(binary(logits, target.double()), binary(logits, target))
    soft = 0.8 * target.double() + 0.2 * (1 - target)
    torch.testing.assert_close(binary(logits, soft), 0.8 * binary(logits, target) + 0.2 * binary(logits, 1 - target))


def loss_of(logits, target):
    return FocalLoss("multiclass", gamma=1.5)(logits, target)


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_label_smoothing_at_gamma_zero_is_that_of_torch(mode):
    logits, target = sample(mode, ignored=0)
    value = FocalLoss(mode, gamma=0.0, label_smoothing=0.1)(logits, target)
    if mode == "multiclass":
        expected = torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.1)
    else:
        labels = target.reshape(logits.shape).double() * 0.9 + 0.05
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_probabilities_for_logits(mode):
    logits, target = sample(mode)
    probability = logits.softmax(1) if mode == "multiclass" else logits.sigmoid()
    loss = FocalLoss(mode, ignore_index=255, from_logits=False, eps=1e-12)
    torch.testing.assert_close(loss(probability, target), FocalLoss(mode, ignore_index=255)(logits, target))
    ends = torch.stack([torch.zeros(2, 4), torch.ones(2, 4)], 1)[:, : 1 if mode == "binary" else 2].requires_grad_()
    labels = torch.tensor([[0, 1, 0, 1]] * 2) if mode != "multilabel" else torch.ones_like(ends).long()
    value = FocalLoss(mode, from_logits=False)(ends, labels)
    (grad,) = torch.autograd.grad(value, ends)
    assert value.isfinite()
    assert grad.isfinite().all()
    assert FocalLoss(mode, from_logits=False, eps=1e-8)(ends, labels).isfinite()  # 1 - 1e-8 is 1 in fp32
