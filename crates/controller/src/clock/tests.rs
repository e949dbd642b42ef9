use super::*;
use proptest::prelude::*;

const HOUR: Nanos = 3_600 * SECOND;

/// A machine whose clock can be set.
struct Machine {
    read: Reading,
    steady: Steady,
}

impl Machine {
    fn new() -> Self {
        let read = Reading {
            wall: 20_000 * DAY,
            boot: 50 * SECOND,
        };
        Self {
            read,
            steady: Steady::start(read, None),
        }
    }

    fn pass(&mut self, span: Nanos) {
        self.read.wall += span;
        self.read.boot += span;
    }

    fn set(&mut self, by: Nanos) {
        self.read.wall += by;
    }

    fn ours(&mut self) -> Nanos {
        self.steady.at(self.read)
    }

    /// When a hook runs now.
    fn order(&self) -> Nanos {
        self.read.wall
    }

    /// The controller is killed, and the next one starts after `away`, in which the clock is set.
    fn restart(&mut self, away: Nanos, by: Nanos) {
        let saved = self.steady.saved("boot");
        self.pass(away);
        self.set(by);
        self.steady = Steady::start(self.read, Some(&saved));
    }
}

#[test]
fn a_clock_that_nobody_sets_is_the_machines() {
    let mut machine = Machine::new();
    for _ in 0..1000 {
        machine.pass(3 * SECOND);
        assert_eq!(machine.ours(), machine.read.wall);
    }
    machine.restart(60 * SECOND, 0);
    assert_eq!(machine.ours() / MILLI, machine.read.wall / MILLI);
    assert!(machine.steady.steps.is_empty());
}

#[test]
fn after_a_step_spans_are_a_tenth_off_and_the_clocks_meet() {
    for by in [HOUR, -HOUR, DAY, -DAY] {
        let mut machine = Machine::new();
        machine.set(by);
        let before = machine.ours();
        machine.pass(60 * SECOND);
        let span = machine.ours() - before;
        assert!((54 * SECOND..=66 * SECOND).contains(&span), "{by}: {span}");
        for _ in 0..12 {
            machine.pass(by.abs());
            machine.ours();
        }
        assert_eq!(machine.ours(), machine.read.wall, "{by}");
        assert_eq!(machine.steady.steps, [by]);
    }
}

#[test]
fn orders_count_as_of_when_they_were_given_whatever_was_set() {
    for by in [HOUR, -HOUR, DAY, -DAY] {
        let mut machine = Machine::new();
        let start = machine.ours();
        machine.pass(10 * SECOND);
        let before = machine.order();
        machine.pass(SECOND);
        machine.set(by);
        machine.pass(SECOND);
        let after = machine.order();
        machine.pass(SECOND);
        let now = machine.ours();
        let [before, after] = [before, after].map(|wall| machine.steady.of_wall(wall));
        assert!(start < before && before < after && after < now, "{by}");
        assert!(
            now - before < 4 * SECOND,
            "{by}: it was given three seconds ago, not {}",
            now - before
        );
    }
}

#[test]
fn the_next_controller_goes_on_with_the_same_time() {
    for by in [HOUR, -HOUR, DAY, -DAY] {
        let mut machine = Machine::new();
        let before = machine.ours();
        machine.pass(SECOND);
        let first = machine.order();
        machine.restart(5 * SECOND, by);
        let second = machine.order();
        machine.pass(SECOND);
        let now = machine.ours();
        assert!((6 * SECOND..8 * SECOND).contains(&(now - before)), "{by}");
        let [first, second] = [first, second].map(|wall| machine.steady.of_wall(wall));
        assert!(before < first && first < second && second < now, "{by}");
    }
}

#[test]
fn a_clock_that_was_years_off_is_not_followed_by_the_next_controller() {
    let mut machine = Machine::new();
    machine.set(-19_000 * DAY);
    machine.steady = Steady::start(machine.read, None);
    machine.restart(SECOND, 19_000 * DAY);
    assert_eq!(machine.ours(), machine.read.wall);
}

#[test]
fn a_reading_that_comes_late_sets_nothing_back() {
    let mut machine = Machine::new();
    let early = machine.read;
    machine.pass(SECOND);
    let now = machine.ours();
    assert_eq!(machine.steady.at(early), now);
    assert!(machine.steady.steps.is_empty());
}

#[test]
fn what_is_stored_is_read_back() {
    let saved = Clock::start(None).saved();
    assert_eq!(Saved::decode(&saved.encode()), Some(saved));
    for odd in ["", "boot 1", "boot 1 x", "boot 1 2 3"] {
        assert_eq!(Saved::decode(odd), None, "{odd}");
    }
}

#[test]
fn people_read_by_how_much_it_was_set() {
    let clock = Clock::start(None);
    clock.steady().steps = vec![-HOUR, 90 * SECOND];
    let said = clock.steps();
    assert!(said[0].contains("set back by 3600s"), "{said:?}");
    assert!(said[1].contains("set ahead by 90s"), "{said:?}");
    assert!(clock.steps().is_empty());
}

proptest! {
    #[test]
    fn it_never_goes_back_and_no_order_lies_ahead(
        days in proptest::collection::vec((0..=HOUR, -3 * DAY..=3 * DAY, any::<bool>()), 1..40)
    ) {
        let mut machine = Machine::new();
        let (mut last, mut off) = (machine.ours(), 0);
        for (span, to, killed) in days {
            let by = to - std::mem::replace(&mut off, to);
            let given = machine.order();
            machine.pass(span);
            if killed {
                machine.restart(0, by);
            } else {
                machine.set(by);
            }
            let now = machine.ours();
            // What is stored is in whole milliseconds.
            prop_assert!(now + MILLI >= last, "{last} then {now}");
            prop_assert!(now - last <= span + span / FOLLOW + MILLI);
            prop_assert!(machine.steady.of_wall(given) <= now);
            last = now;
        }
    }
}

#[test]
fn slurmd_starts_after_the_second_of_the_request() {
    let left = |wall: Nanos, age: Nanos| left_of_second(wall * MILLI, age * MILLI).as_millis();
    assert_eq!(left(7_900, 600), 100);
    assert_eq!(left(7_000, 0), 1_000);
    assert_eq!(left(8_000, 1), 0);
    assert_eq!(left(9_500, 2_000), 0);
    // Of a clock that was read in between.
    assert_eq!(left(7_900, -5), 100);
}
