//! Keeps the guest's clock with its machine's.
//!
//! A guest that was suspended, saved or moved goes on where it stood, and so does its clock. Its
//! machine's clock (the CMOS RTC) does not: QEMU counts it by the host's time, also across a restore on
//! another host (`rtc_clock` in QEMU's `hw/rtc/mc146818rtc.c`). So it is the one that tells, whoever
//! paused the guest, and without anybody in it.

use crate::context;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The machine's clock, in whole seconds since the Unix epoch (Linux's `rtc-sysfs`).
const MACHINE: &str = "/sys/class/rtc/rtc0/since_epoch";

/// How long the clocks go on between two comparisons.
const EVERY: Duration = Duration::from_secs(1);

/// Compares the clocks beside all else, as long as the guest runs.
pub fn keep() {
    if machine().is_none() {
        return eprintln!("thiao-guest: cannot read {MACHINE}: the clock will be late after a pause");
    }
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(EVERY);
            // What cannot be read now may be read the next time.
            if let Some(machine) = machine() {
                compare(machine);
            }
        }
    });
}

fn machine() -> Option<u64> {
    fs::read_to_string(MACHINE).ok()?.trim().parse().ok()
}

fn compare(machine: u64) {
    let guest = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Some(right) = right(machine, guest.as_secs()) {
        let done = u64::try_from(right.as_nanos())
            .map_err(|e| e.to_string())
            .and_then(context::set_clock);
        match done {
            Ok(()) => println!(
                "thiao-guest: the clock was at {}, the machine's is at {machine}: it is set",
                guest.as_secs()
            ),
            Err(error) => eprintln!("thiao-guest: {error}"),
        }
    }
}

/// What the guest's clock is to be set to, if the two differ by more than their whole seconds can: the
/// middle of the machine's second, since where in it that is nobody says.
fn right(machine: u64, guest: u64) -> Option<Duration> {
    (machine.abs_diff(guest) > 1).then(|| Duration::from_secs(machine) + Duration::from_millis(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_is_surely_wrong_is_set() {
        for guest in [99, 100, 101] {
            assert_eq!(right(100, guest), None, "{guest}");
        }
        for guest in [0, 98, 102, u64::MAX] {
            assert_eq!(right(100, guest), Some(Duration::from_millis(100_500)), "{guest}");
        }
    }
}
