use super::*;
use proptest::prelude::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn a_burst_goes_at_once_and_then_one_after_another() {
    let mut turns = Turns::new(10, 3);
    let at = ms(5000);
    let tickets: Vec<u64> = (0..5).map(|_| turns.come(Kind::Acting, at)).collect();
    for ticket in &tickets[..3] {
        assert_eq!(turns.go(at), Some(*ticket));
        turns.done(Kind::Acting);
    }
    assert_eq!(turns.go(at), None);
    assert_eq!(turns.turn(at), Turn::NotBefore(ms(5100)));
    assert_eq!(turns.go(ms(5100)), Some(tickets[3]));
    assert_eq!(turns.turn(ms(5100)), Turn::NotBefore(ms(5200)));
    turns.done(Kind::Acting);
    assert_eq!(turns.go(ms(5200)), Some(tickets[4]));
    assert_eq!(turns.turn(ms(5200)), Turn::Nobody);
}

#[test]
fn no_rate_is_no_limit() {
    let mut turns = Turns::new(0, 2);
    for _ in 0..1000 {
        let ticket = turns.come(Kind::Acting, ms(0));
        assert_eq!(turns.go(ms(0)), Some(ticket));
        turns.done(Kind::Acting);
    }
}

#[test]
fn acting_goes_first_and_a_read_gets_one_turn_in_fifteen() {
    let mut turns = Turns::new(0, 1);
    let read = turns.come(Kind::Reading, ms(0));
    for _ in 0..100 {
        turns.come(Kind::Acting, ms(0));
    }
    for turn in 1..=30 {
        let went = turns.go(ms(0)).expect("somebody");
        assert_eq!(went == read, turn == 15, "turn {turn}");
        turns.done(if went == read { Kind::Reading } else { Kind::Acting });
    }
}

#[test]
fn a_read_waits_half_a_second_at_most_while_acting_is_slow() {
    let mut turns = Turns::new(4, 1);
    for _ in 0..100 {
        turns.come(Kind::Acting, ms(0));
    }
    let read = turns.come(Kind::Reading, ms(0));
    for now in [0, 250] {
        assert_ne!(turns.go(ms(now)), Some(read));
        turns.done(Kind::Acting);
    }
    assert_eq!(turns.go(ms(500)), Some(read));
}

#[test]
fn at_one_call_a_second_reading_and_acting_take_turns() {
    let mut turns = Turns::new(1, 1);
    for _ in 0..10 {
        turns.come(Kind::Acting, ms(0));
        turns.come(Kind::Reading, ms(0));
    }
    let mut went = Vec::new();
    for second in 0..10 {
        let ticket = turns.go(ms(1000 * second)).expect("somebody");
        let kind = if ticket.is_multiple_of(2) {
            Kind::Acting
        } else {
            Kind::Reading
        };
        turns.done(kind);
        went.push(kind == Kind::Reading);
    }
    assert_eq!(went.iter().filter(|read| **read).count(), 5, "{went:?}");
}

#[test]
fn neither_kind_takes_the_last_connection_from_the_other() {
    for (busy, other) in [(Kind::Acting, Kind::Reading), (Kind::Reading, Kind::Acting)] {
        let mut turns = Turns::new(0, 4);
        for _ in 0..10 {
            turns.come(busy, ms(0));
        }
        let mut went = 0;
        while turns.go(ms(0)).is_some() {
            went += 1;
        }
        assert_eq!(went, 3);
        let ticket = turns.come(other, ms(0));
        assert_eq!(turns.go(ms(0)), Some(ticket));
    }
}

#[test]
fn threads_get_their_turns_and_never_too_many_at_once() {
    let budget = Budget::new(0, 3);
    let running = Mutex::new((0, 0));
    std::thread::scope(|scope| {
        for n in 0..12 {
            let (budget, running) = (&budget, &running);
            scope.spawn(move || {
                for _ in 0..50 {
                    let _permit = budget.wait(if n % 2 == 0 { Kind::Acting } else { Kind::Reading });
                    {
                        let mut seen = running.lock().expect("lock");
                        seen.0 += 1;
                        seen.1 = seen.0.max(seen.1);
                    }
                    std::thread::yield_now();
                    running.lock().expect("lock").0 -= 1;
                }
            });
        }
    });
    let (left, most) = *running.lock().expect("lock");
    assert_eq!(left, 0);
    assert!(most <= 3, "{most}");
}

#[test]
fn nobody_is_forgotten_when_time_alone_gives_the_turn() {
    let budget = Budget::new(2000, 3);
    let went = Mutex::new(0);
    std::thread::scope(|scope| {
        for n in 0..24 {
            let (budget, went) = (&budget, &went);
            scope.spawn(move || {
                for _ in 0..20 {
                    let permit = budget.wait(if n % 3 == 0 { Kind::Reading } else { Kind::Acting });
                    *went.lock().expect("lock") += 1;
                    drop(permit);
                }
            });
        }
    });
    assert_eq!(*went.lock().expect("lock"), 480);
    assert!(budget.lock().bells.is_empty());
}

proptest! {
    /// Whatever comes and goes: never too many at once, never more than the rate and the
    /// burst allow, first come first served within a kind, and whoever waits goes at last.
    #[test]
    fn turns_are_bounded_fair_and_come(
        rate in 0u32..50,
        connections in 1usize..10,
        steps in prop::collection::vec((0u8..4, 0u64..200), 1..200),
    ) {
        let mut turns = Turns::new(rate, connections);
        let mut now = Duration::ZERO;
        let mut kinds = Vec::new();
        let mut running = Vec::new();
        let mut went: Vec<(Duration, u64)> = Vec::new();
        for (step, wait) in steps {
            now += ms(wait);
            match step {
                0 => kinds.push((turns.come(Kind::Acting, now), Kind::Acting)),
                1 => kinds.push((turns.come(Kind::Reading, now), Kind::Reading)),
                2 => if let Some(kind) = running.pop() { turns.done(kind) },
                _ => if let Some(ticket) = turns.go(now) {
                    went.push((now, ticket));
                    running.push(kinds[ticket as usize].1);
                },
            }
            prop_assert!(running.len() <= connections);
        }
        while went.len() < kinds.len() {
            match turns.turn(now) {
                Turn::Of(ticket) => {
                    prop_assert_eq!(turns.go(now), Some(ticket));
                    went.push((now, ticket));
                    running.push(kinds[ticket as usize].1);
                }
                Turn::NotBefore(then) => {
                    prop_assert!(then > now);
                    now = then;
                }
                Turn::Nobody => turns.done(running.pop().expect("somebody runs, or it would go on")),
            }
        }
        for kind in [Kind::Acting, Kind::Reading] {
            let order: Vec<u64> = went.iter().map(|(_, t)| *t).filter(|t| kinds[*t as usize].1 == kind).collect();
            prop_assert!(order.is_sorted());
        }
        if rate > 0 {
            let burst = connections.min(rate as usize);
            for (n, (start, _)) in went.iter().enumerate() {
                let end = *start + ms(999);
                let within = went[n..].iter().take_while(|(at, _)| *at <= end).count();
                prop_assert!(within <= rate as usize + burst, "{} in a second", within);
            }
        }
    }
}
