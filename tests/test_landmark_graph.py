"""Heat maps to places and graphs, the graph network, and what the released reading of OsGG-Net makes of any image."""

import pytest
import torch

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.graphs import (
    GraphBlock,
    GraphPose,
    adjacency,
    affinities,
    clipped,
    entries,
    missing_degree,
    released_graph_loss,
    soft_argmax,
    softmax_maps,
    values_at,
)
from ubhpd.nn.landmark_sets import LANDMARK_SETS, neighbours

ALLOWED = torch.from_numpy(neighbours(LANDMARK_SETS[19], 7))
SIDE = 64


def bumps(n=3, seed=0, sigma=8.0):
    """Places (n, 19, 2) well inside the image, and heat maps with a bump at each."""
    places = torch.rand((n, 19, 2), generator=torch.Generator().manual_seed(seed)) * 0.6 - 0.3
    middle = (torch.arange(SIDE) + 0.5) / SIDE - 0.5
    dx, dy = middle - places[..., :1], middle - places[..., 1:]
    return places, -(dx[:, :, None, :] ** 2 + dy[:, :, :, None] ** 2) * SIDE**2 / (2 * sigma**2)


def released(logits, places):
    affinity = affinities(logits, places, "softmax", "column-row")
    return adjacency(affinity, ALLOWED, "multiply", "sum")


def paper(logits, places, threshold=0.0):
    affinity = affinities(logits, places, "logits", "row-column")
    return clipped(adjacency(affinity, ALLOWED, "inf", "mean"), threshold, "prune")


def test_a_map_with_all_its_weight_in_one_cell_gives_that_cell():
    maps = torch.zeros((1, 2, 8, 16))
    maps[0, 0, 3, 5] = maps[0, 1, 7, 15] = 1  # row, column
    assert soft_argmax(maps)[0].tolist() == [[5.5 / 16 - 0.5, 3.5 / 8 - 0.5], [15.5 / 16 - 0.5, 7.5 / 8 - 0.5]]


def test_places_do_not_depend_on_the_size_of_the_map():
    fine = torch.rand((2, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fine /= fine.sum(dim=(2, 3), keepdim=True)
    finer = fine.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) / 4
    torch.testing.assert_close(soft_argmax(fine), soft_argmax(finer))


def test_the_softmax_of_a_map_is_over_all_its_cells():
    maps = softmax_maps(torch.tensor([[[[0.0, 0.0], [0.0, 3.0**0.5]]]]).log1p())
    assert maps.sum().item() == pytest.approx(1) and maps[0, 0, 0, 0] == maps[0, 0, 1, 0]
    assert maps[0, 0, 1, 1].item() == pytest.approx((1 + 3**0.5) / (4 + 3**0.5))


def test_values_are_read_at_row_and_column():
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    assert values_at(maps, torch.tensor([[3, 0]]), torch.tensor([[1, 2]])).tolist() == [[[7.0, 8.0]]]


def test_each_map_is_highest_at_its_own_landmark_unless_the_index_is_turned():
    places, logits = bumps(sigma=2.0)
    own = affinities(logits, places, "logits", "row-column").diagonal(dim1=1, dim2=2)
    assert own.min() > -(0.5**2) / 2**2  # at most half a cell off in x and in y
    turned = affinities(logits, places, "logits", "column-row").diagonal(dim1=1, dim2=2)
    assert turned.mean() < -10
    sharp = affinities(logits, places, "softmax", "row-column")
    assert torch.equal(sharp.argmax(dim=2)[:, :3], torch.arange(3).expand(3, 3))


def test_gradient_reaches_the_values_of_the_maps_but_not_the_places():
    places, logits = bumps()
    logits.requires_grad_()
    places.requires_grad_()
    affinities(logits, places, "logits", "row-column").sum().backward()
    assert places.grad is None and logits.grad.count_nonzero() > 0


@pytest.mark.parametrize("sigma", [1.0, 2.0, 8.0])
def test_the_released_graph_is_the_same_for_any_input(sigma):
    """For bumps wide and narrow, for noise and for both: 2 / 19, to four digits on average."""
    places, logits = bumps(sigma=sigma)
    noise = torch.randn((3, 19, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    for maps in (logits, noise, logits + noise):
        off = (released(maps, places) - 2 / 19).abs()
        assert off.mean() < 1e-4 and off.max() < 0.02
    assert paper(logits, places).std(dim=0).max() > 0.05


def test_the_released_graph_of_wide_maps_is_pruned_away_whole():
    places, logits = bumps(sigma=8.0)
    assert (released(logits, places) - 2 / 19).abs().max() < 3e-4
    assert clipped(released(logits, places), 0.106, "prune").count_nonzero() == 0


def test_adjacency_by_hand():
    affinity = torch.tensor([[[9.0, 0.0, 0.0], [1.0, 9.0, 1.0], [2.0, 2.0, 9.0]]])
    allowed = torch.tensor([[False, True, False], [True, False, True], [True, True, False]])
    half, quarter = 0.5, 0.25
    expected = [[0.0, 0.75, quarter], [0.75, 0.0, half], [quarter, half, 0.0]]
    assert torch.allclose(adjacency(affinity, allowed, "inf", "mean")[0], torch.tensor(expected))
    assert torch.allclose(adjacency(affinity, allowed, "inf", "sum")[0], 2 * torch.tensor(expected))
    printed = adjacency(affinity, allowed, "multiply", "mean")
    assert torch.allclose(printed[0].diagonal()[:1], torch.tensor([1 / 3]))  # what is masked counts as exp(0)


def test_pruning_takes_edges_away_and_the_floor_makes_them():
    graph = torch.tensor([[[0.0, 0.1, 0.3]]])
    assert clipped(graph, 0.1, "prune")[0, 0].tolist() == pytest.approx([0, 0, 0.3])
    assert clipped(graph, 0.1, "floor")[0, 0].tolist() == pytest.approx([0.1, 0.1, 0.3])
    assert torch.equal(clipped(graph, 0.0, "prune"), clipped(graph, 0.0, "floor"))


def test_the_sparse_loss_is_constant_without_pruning():
    places, logits = bumps()
    logits = logits.double().requires_grad_()
    total = entries(paper(logits, places))
    assert total.tolist() == pytest.approx([19.0] * 3)
    (gradient,) = torch.autograd.grad(total.sum(), logits)
    assert gradient.abs().max() < 1e-12
    (gradient,) = torch.autograd.grad(entries(paper(logits, places, 0.1)).sum(), logits)
    assert gradient.abs().max() > 1e-3


def test_the_dense_loss_opposes_the_sparse_one():
    graph = torch.tensor([[[5.0, 0.2, 0.3], [0.2, 0.0, 0.9], [0.3, 0.9, 0.0]]], requires_grad=True)
    assert missing_degree(graph).item() == pytest.approx(0.5)  # only the first node lacks edges; its loop is no edge
    assert entries(graph).item() == pytest.approx(7.8)
    (dense,) = torch.autograd.grad(missing_degree(graph).sum(), graph)
    assert dense.tolist() == [[[0, -1, -1], [0, 0, 0], [0, 0, 0]]]


def test_the_released_dense_loss_has_no_gradient():
    graph = torch.tensor([[[0.0, 1.5], [1.5, 0.2]]], requires_grad=True)
    sparse, dense = (released_graph_loss(graph, *weights) for weights in ((1.0, 0.0), (0.0, 1.0)))
    assert (sparse.item(), dense.item()) == (pytest.approx(1 + 3 + 0.8), -0.0)
    both = released_graph_loss(torch.tensor([[[0.5, 1.5], [1.5, 0.5]]]), 1.0, 10.0)  # columns add up to 1 each
    assert both.item() == pytest.approx(0.5 + 3 + 0.5 - 10 * 2)
    assert torch.autograd.grad(dense.sum(), graph)[0].count_nonzero() == 0


def test_a_block_sums_over_the_partitions_of_the_graph():
    torch.manual_seed(0)
    block = GraphBlock(2, 4, partitions=3).eval()
    nodes, fixed = torch.randn(5, 2, 6), torch.rand(3, 6, 6)
    spread = block.spread(nodes).view(5, 3, 4, 6)
    summed = sum(torch.einsum("ncv,vw->ncw", spread[:, p], fixed[p]) for p in range(3))
    expected = torch.relu(block.mix(summed) + block.shortcut(nodes))
    torch.testing.assert_close(block(nodes, fixed), expected)
    torch.testing.assert_close(block(nodes, fixed.expand(5, 3, 6, 6)), expected)


def test_without_edges_a_block_without_shortcut_sees_nothing():
    torch.manual_seed(0)
    block = GraphBlock(2, 4, has_shortcut=False).eval()
    out = block(torch.randn(2, 2, 6), torch.zeros(1, 6, 6))
    assert torch.equal(out[0], out[1]) and torch.equal(out[..., 0], out[..., 5])


def test_the_pose_network_has_the_parameters_of_the_released_one():
    with torch.device("meta"):
        count = sum(p.numel() for p in GraphPose(19).parameters())
        learned = sum(p.numel() for p in GraphPose(19, partitions=3, learns_edges=True).parameters())
        spread = sum(p.numel() for block in GraphPose(19).blocks for p in block.spread.parameters())
    assert count == 98_127
    assert learned == count + 2 * spread + 5 * 3 * 19 * 19
    with pytest.raises(UbhpdError, match="1 graph blocks"):
        GraphPose(19, blocks=1)


def test_learned_edges_start_as_the_graph_itself_and_then_matter():
    torch.manual_seed(0)
    network = GraphPose(4, blocks=2, learns_edges=True).eval()
    plain = GraphPose(4, blocks=2).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("edges")})
    places, graph = torch.randn(3, 4, 2), torch.rand(1, 4, 4)
    assert torch.equal(network(places, graph), plain(places, graph))
    with torch.no_grad():
        network.edges[1][0, 2, 3] = 5
    assert not torch.equal(network(places, graph), plain(places, graph))


def rank(network, places, graph):
    """Directions of the 38 coordinates that the pose depends on, over all heads."""
    places = places.clone().requires_grad_()
    pose = network(places, graph)
    rows = [torch.autograd.grad(pose[:, i].sum(), places, retain_graph=True)[0].flatten(1) for i in range(3)]
    return int(torch.linalg.matrix_rank(torch.cat(rows), rtol=1e-6))


def test_a_constant_graph_leaves_two_numbers_of_the_landmarks():
    torch.manual_seed(0)
    network = GraphPose(19).double().eval()
    places, logits = bumps(n=32)
    places, graph = places.double(), paper(logits, places).double().unsqueeze(1)
    constant = torch.full((1, 19, 19), 2 / 19, dtype=torch.float64)
    assert rank(network, places, constant) == 2
    assert rank(network, places, graph) == 38
