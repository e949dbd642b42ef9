//! Whether the bus is heard, and whether it tells what it should. Pure.

use super::news::News;
use std::time::Instant;

/// A bus that left out so many states is deaf: it is listened to still, and not relied on.
const DEAF: u32 = 3;

/// So many states in a row that it told make good what it left out before.
const GOOD: u32 = 20;

/// What is known of the bus.
#[derive(Debug, Clone, Default)]
pub(super) struct Bus {
    state: State,
    /// States told since one was left out.
    good: u32,
    /// States left out lately.
    missed: u32,
    /// All that it ever told of our VMs.
    heard: u64,
}

#[derive(Debug, Clone, Default)]
enum State {
    /// Nobody listens to it.
    #[default]
    Off,
    /// It is not connected; why.
    Unheard(String),
    /// It is connected since then; `proven`: and something came.
    Connected { since: Instant, proven: bool },
}

/// How a bus is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hearing {
    /// Not at all; why.
    Not(String),
    /// It is connected, and nothing has come so far.
    Nothing,
    /// It tells what happens: so many states of our VMs so far.
    Well(u64),
    /// It left out so many lately.
    Badly(u32),
}

impl Bus {
    /// It is not connected any more, or not yet.
    pub fn lost(&mut self, why: String) {
        self.state = State::Unheard(why);
    }

    /// It is connected from now on. What it left out before was perhaps told to nobody.
    pub fn connected(&mut self, now: Instant) {
        self.state = State::Connected {
            since: now,
            proven: false,
        };
        (self.good, self.missed) = (0, 0);
    }

    /// Some message came by it.
    pub fn told(&mut self) {
        if let State::Connected { proven, .. } = &mut self.state {
            *proven = true;
        }
    }

    /// Since when it is connected.
    pub fn since(&self) -> Option<Instant> {
        match self.state {
            State::Connected { since, .. } => Some(since),
            State::Off | State::Unheard(_) => None,
        }
    }

    /// Counts what it told and what it left out.
    pub fn count(&mut self, news: &mut News) {
        let (heard, missed) = (std::mem::take(&mut news.heard), std::mem::take(&mut news.missed));
        self.heard += u64::from(heard);
        if missed > 0 {
            self.good = 0;
            self.missed = self.missed.saturating_add(missed);
            return;
        }
        self.good = self.good.saturating_add(heard);
        if self.good >= GOOD {
            (self.good, self.missed) = (0, 0);
        }
    }

    /// Whether it may be relied on: whole observations can be rare.
    pub fn is_heard(&self) -> bool {
        matches!(self.state, State::Connected { proven: true, .. }) && self.missed < DEAF
    }

    /// In the words of those who ask; none: nobody listens.
    pub fn hearing(&self) -> Option<Hearing> {
        Some(match &self.state {
            State::Off => return None,
            State::Unheard(why) => Hearing::Not(why.clone()),
            State::Connected { .. } if self.missed >= DEAF => Hearing::Badly(self.missed),
            State::Connected { proven: false, .. } => Hearing::Nothing,
            State::Connected { proven: true, .. } => Hearing::Well(self.heard),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(heard: u32, missed: u32) -> News {
        let mut news = News::default();
        (news.heard, news.missed) = (heard, missed);
        news
    }

    #[test]
    fn a_bus_is_relied_on_when_something_came() {
        let mut bus = Bus::default();
        assert_eq!((bus.is_heard(), bus.hearing()), (false, None));
        bus.lost("connection refused".into());
        assert_eq!(bus.hearing(), Some(Hearing::Not("connection refused".into())));
        bus.connected(Instant::now());
        assert!(!bus.is_heard(), "it may say nothing for ever");
        bus.told();
        assert!(bus.is_heard());
        bus.lost("closed".into());
        assert!(!bus.is_heard());
    }

    #[test]
    fn a_bus_that_leaves_out_things_is_deaf_until_it_makes_good() {
        let mut bus = Bus::default();
        bus.connected(Instant::now());
        bus.told();
        bus.count(&mut news(100, DEAF - 1));
        assert!(bus.is_heard());
        bus.count(&mut news(GOOD - 1, 0));
        bus.count(&mut news(0, 1));
        assert!(!bus.is_heard(), "{bus:?}");
        assert_eq!(bus.hearing(), Some(Hearing::Badly(DEAF)));
        bus.count(&mut news(GOOD - 1, 0));
        assert!(!bus.is_heard());
        bus.count(&mut news(1, 0));
        assert!(bus.is_heard());
        bus.count(&mut news(0, DEAF));
        bus.connected(Instant::now());
        bus.told();
        assert!(bus.is_heard(), "another connection begins anew");
    }
}
