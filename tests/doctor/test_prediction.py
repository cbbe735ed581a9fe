import pytest

from convlora.doctor.prediction import (
    Fit,
    Line,
    Measurement,
    Setting,
    all_settings,
    choose,
    fit,
    to_check,
)


def point(batch, peak, seconds, method="lora", size=256, loaded=400.0):
    return Measurement(method, size, batch, loaded, peak, seconds)


def setting(method, size, batch, peak, seconds=1.0, measured=False):
    return Setting(method, size, batch, peak, seconds, measured)


def test_two_batches_give_the_line_through_both():
    lines = fit([point(4, 800.0, 2.6), point(1, 500.0, 0.8)])
    assert lines.memory == Line(400.0, 100.0)  # (800 - 500) / 3 and 500 - 100
    assert lines.seconds.slope == pytest.approx(0.6) and lines.seconds.fixed == pytest.approx(0.2)
    assert lines.memory.at(8) == 1200.0 and lines.seconds.at(8) == pytest.approx(5.0)


def test_between_two_batches_a_third_does_not_count():
    assert fit([point(1, 500.0, 1.0), point(2, 9e9, 99.0), point(4, 800.0, 4.0)]).memory == Line(400.0, 100.0)


def test_one_batch_alone_counts_all_that_was_added_as_the_images():
    lines = fit([point(2, 700.0, 3.0)])
    assert lines.memory == Line(400.0, 150.0) and lines.seconds == Line(0.0, 1.5)


def test_one_batch_takes_the_fixed_part_of_the_other_size():
    base = Fit(Line(400.0, 100.0), Line(0.25, 0.5))
    lines = fit([point(1, 900.0, 2.25, size=512)], base, growth=4)
    assert lines == Fit(Line(400.0, 500.0), Line(0.25, 2.0))


def test_a_size_without_measurements_grows_with_its_pixels():
    base = Fit(Line(400.0, 100.0), Line(0.25, 0.5))
    assert fit([], base, growth=4) == Fit(Line(400.0, 400.0), Line(0.25, 2.0))
    with pytest.raises(ValueError, match="neither measurements nor another size"):
        fit([])


def test_a_disturbed_clock_gives_no_line_that_falls_or_starts_below_zero():
    assert fit([point(1, 500.0, 2.0), point(4, 500.0, 1.0)]).seconds == Line(2.0, 0.0)
    assert fit([point(1, 500.0, 1.0), point(4, 500.0, 7.0)]).seconds == Line(0.0, 1.0)  # else 2 * batch - 1
    base = Fit(Line(400.0, 0.0), Line(3.0, 0.0))
    assert fit([point(1, 300.0, 2.0)], base) == Fit(Line(300.0, 0.0), Line(2.0, 0.0))


def test_the_table_holds_what_was_measured_and_predicts_the_rest():
    points = [point(1, 500.0, 0.8), point(4, 800.0, 2.6), point(1, 900.0, 2.0, size=512)]
    found = {(s.method, s.size, s.batch): s for s in all_settings(points, (256, 512))}
    assert len(found) == 8 and {method for method, _, _ in found} == {"lora"}
    assert {place for place, s in found.items() if s.measured} == {("lora", 256, 1), ("lora", 256, 4), ("lora", 512, 1)}
    assert found["lora", 256, 4].peak == 800.0 and found["lora", 256, 2].peak == 600.0
    assert found["lora", 512, 8].peak == 4400.0  # 400 + 8 * (900 - 400)
    assert found["lora", 512, 2].seconds == pytest.approx(3.8)  # 0.2 + 2 * (2.0 - 0.2)


def test_the_preferred_method_comes_before_the_size_and_the_size_before_the_batch():
    settings = [
        setting("decoder", 512, 8, 50.0),
        setting("conv-lora", 256, 8, 90.0),
        setting("conv-lora", 512, 1, 95.0),
        setting("conv-lora", 512, 2, 101.0),
        setting("full", 512, 8, 60.0),
    ]
    assert choose(settings, 101.0) == settings[3]
    assert choose(settings, 100.0) == settings[2]
    assert choose(settings, 94.0) == settings[1]
    assert choose(settings, 89.0) == settings[0]
    assert choose(settings, 49.0) is None


def test_no_batch_is_chosen_that_the_images_do_not_fill():
    settings = [setting("lora", 256, batch, 1.0) for batch in (1, 2, 4, 8)]
    assert [choose(settings, 2.0, most).batch for most in (0, 1, 3, 4, 100)] == [1, 1, 2, 4, 8]


def test_the_setting_that_is_checked_was_predicted_and_is_short():
    settings = [setting("lora", 512, b, 1.0, seconds=b, measured=b == 1) for b in (1, 2, 4, 8)]
    settings.append(setting("lora", 256, 8, 1.0))
    assert to_check(settings, settings[3], 10.0) == settings[3]
    assert to_check(settings, settings[3], 7.0) == settings[2]
    assert to_check(settings, settings[0], 10.0) is None
    assert to_check(settings, settings[3], 1.5) is None
