"""Random streams against torch's own generators."""

import threading

import pytest
import torch

from tsllm.training.randomness import RandomStream, seeded


def test_seeded_draws_what_a_seeded_generator_draws_and_restores_the_global_state():
    torch.manual_seed(7)
    expected_after = torch.rand(4, generator=torch.Generator().manual_seed(7))
    with seeded(3):
        drawn = torch.rand(5)
    assert drawn.equal(torch.rand(5, generator=torch.Generator().manual_seed(3)))
    assert torch.rand(4).equal(expected_after)


def test_the_global_state_is_restored_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded(3):
        torch.rand(5)
        raise ZeroDivisionError
    assert torch.get_rng_state().equal(before)


def test_a_stream_goes_on_where_it_was():
    stream, whole = RandomStream(1), torch.Generator().manual_seed(1)
    for size in (3, 1, 6):
        torch.rand(2)
        with stream.active():
            assert torch.rand(size).equal(torch.rand(size, generator=whole))


def test_a_stream_can_be_put_back():
    stream = RandomStream(1)
    with stream.active():
        torch.rand(3)
    place = stream.state_dict()
    with stream.active():
        expected = torch.rand(4)
    other = RandomStream(2)
    other.load_state_dict(place)
    with other.active():
        assert torch.rand(4).equal(expected)


def test_streams_of_several_threads_draw_what_each_draws_alone():
    def draw(seed):
        stream, drawn = RandomStream(seed), []
        for _ in range(50):
            with stream.active():
                drawn += [torch.rand(2), torch.rand(3)]
        return torch.cat(drawn)

    before = torch.get_rng_state()
    together = {}
    threads = [
        threading.Thread(target=lambda seed=seed: together.update({seed: draw(seed)}))
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        assert together[seed].equal(torch.rand(250, generator=torch.Generator().manual_seed(seed)))
    assert torch.get_rng_state().equal(before)


def test_streams_nest():
    with seeded(1):
        first = torch.rand(2)
        with seeded(2):
            torch.rand(9)
        second = torch.rand(2)
    assert torch.cat([first, second]).equal(
        torch.rand(4, generator=torch.Generator().manual_seed(1))
    )


@pytest.mark.gpu
def test_a_stream_on_a_gpu_goes_on_where_it_was_and_restores_the_generator():
    if not torch.cuda.is_available():
        pytest.skip("this machine has no gpu")
    device = torch.device("cuda")
    before = torch.cuda.get_rng_state()
    stream = RandomStream(1, device)
    whole = torch.Generator(device="cuda").manual_seed(1)
    for size in (3, 1, 6):
        with stream.active():
            expected = torch.rand(size, device="cuda", generator=whole)
            assert torch.rand(size, device="cuda").equal(expected)
    assert torch.cuda.get_rng_state().equal(before)
    assert stream.state_dict().keys() == {"cpu", "cuda"}
