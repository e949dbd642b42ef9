//! One observation for all who wait for one.

use crate::error::{Class, Error};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Lets callers that need an observation which began after their call share one.
#[derive(Debug, Default)]
pub(super) struct Flight {
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Observations begun so far.
    begun: u64,
    /// Whether the last of them is under way.
    flying: bool,
    /// The newest result, and which observation's it is.
    result: Option<(u64, Result<(), Error>)>,
}

impl Flight {
    /// The observation that is under way, else the next.
    pub fn current(&self) -> u64 {
        let state = self.lock();
        state.begun + u64::from(!state.flying)
    }

    /// Returns the result of a run of `observe` that began after this call.
    pub fn share(&self, observe: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let wanted = self.lock().begun + 1;
        self.share_from(wanted, observe)
    }

    /// Returns the result of the newest run of `observe`, if it is this one or a later one; else of the next.
    pub fn share_from(&self, wanted: u64, observe: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let mut state = self.lock();
        loop {
            if let Some((number, result)) = &state.result
                && *number >= wanted
            {
                return result.clone();
            }
            if !state.flying {
                break;
            }
            state = self.landed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.flying = true;
        state.begun += 1;
        let mut landing = Landing {
            flight: self,
            number: state.begun,
            result: Err(Error::new(
                Class::Unknown,
                "the observation of OpenNebula ended badly",
            )),
        };
        drop(state);
        landing.result = observe();
        landing.result.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lands even when the observation panics.
struct Landing<'a> {
    flight: &'a Flight,
    number: u64,
    result: Result<(), Error>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut state = self.flight.lock();
        state.flying = false;
        state.result = Some((self.number, self.result.clone()));
        drop(state);
        self.flight.landed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn callers_share_an_observation_that_began_after_their_calls() {
        let flight = Flight::default();
        let (inside, outside) = (Barrier::new(2), Barrier::new(2));
        let observations = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                flight.share(|| {
                    inside.wait();
                    outside.wait();
                    observations.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                })
            });
            inside.wait();
            let late: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        flight.share(|| {
                            observations.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        })
                    })
                })
                .collect();
            // One of these flies when the first has landed, for itself and all who wait by then.
            outside.wait();
            assert!(first.join().unwrap().is_ok());
            assert!(late.into_iter().all(|caller| caller.join().unwrap().is_ok()));
        });
        assert!(observations.load(Ordering::SeqCst) >= 2);
    }

    #[test]
    fn an_observation_under_way_is_enough_for_who_asks_for_no_newer_one() {
        let flight = Flight::default();
        let (inside, outside) = (Barrier::new(2), Barrier::new(2));
        assert_eq!(flight.current(), 1, "the next");
        std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                flight.share(|| {
                    inside.wait();
                    outside.wait();
                    Ok(())
                })
            });
            inside.wait();
            assert_eq!(flight.current(), 1, "the one under way");
            outside.wait();
            assert!(first.join().unwrap().is_ok());
        });
        assert!(flight.share_from(1, || panic!("no other is needed")).is_ok());
        let failed = flight.share_from(flight.current(), || Err(Error::new(Class::Network, "anew")));
        assert!(failed.is_err(), "that was the next");
    }

    #[test]
    fn a_failed_observation_fails_for_all_and_the_next_is_tried_anew() {
        let flight = Flight::default();
        let failed = flight.share(|| Err(Error::new(Class::Network, "down")));
        assert_eq!(failed.unwrap_err().class, Class::Network);
        assert!(flight.share(|| Ok(())).is_ok());
    }

    #[test]
    fn an_observation_that_panics_holds_nobody_up() {
        let flight = Flight::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            flight.share(|| panic!("on purpose"))
        }));
        assert!(panicked.is_err());
        assert!(flight.share(|| Ok(())).is_ok());
    }
}
