//! The thread that hears the bus, and what the provider makes of what it hears.

use super::bus::Hearing;
use super::calls::Calls;
use super::memory::Memory;
use super::news::{ASKS_APART, Said, WHOLE_APART};
use super::{Inner, fold, now};
use crate::error::Error;
use crate::events::link::Link;
use crate::events::message::{self, Event};
use crate::events::zmtp::Message;
use crate::model::VmDetails;
use crate::places::Reach;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use thiao_core::view::{ProviderView, VmView};

/// How long the thread listens without looking for what is due, and whether anybody needs it still.
const NAP: Duration = Duration::from_millis(500);

/// The first pause after the bus was not reached; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The controller is woken so often at most.
const WAKES_APART: Duration = Duration::from_millis(50);

/// One that was woken and has not come is woken again.
const WAKES_AGAIN: Duration = Duration::from_secs(1);

/// What an observation gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// All VMs of this cluster and the hosts.
    Whole(ProviderView),
    /// The VMs of which something is newer than the last whole observation.
    News(Vec<News>),
}

/// What is new of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub vm: VmView,
    /// How long ago oned was asked for it; none: a message said so.
    pub asked: Option<Duration>,
}

/// What oned said when it was asked for these VMs, from `began` on.
struct Answer {
    ids: Vec<u32>,
    details: Vec<VmDetails>,
    began: Instant,
}

/// What the provider tells of the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// `HOST:PORT` of the bus.
    pub address: String,
    /// Whether somebody wrote down where it is: then it should be there.
    pub configured: bool,
    /// How it is heard.
    pub hearing: Hearing,
}

/// Who is woken when there is something to fetch.
pub(super) type Wake = Arc<dyn Fn() + Send + Sync>;

/// When somebody was woken.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    /// When it was last.
    last: Option<Instant>,
    /// Whether nobody has come since.
    waits: bool,
}

impl Wakes {
    /// When somebody is to be woken for what is due then.
    fn at(&self, due: Instant) -> Instant {
        let pause = if self.waits { WAKES_AGAIN } else { WAKES_APART };
        self.last.map_or(due, |last| due.max(last + pause))
    }
}

/// Hears the bus until nobody needs the provider any more.
pub(super) fn run<C: Calls>(provider: &Weak<Inner<C>>, address: &str, wake: &Wake) {
    let mut pause = FIRST_PAUSE;
    loop {
        let why = match Link::open(address) {
            Ok(mut link) => {
                let Some(inner) = provider.upgrade() else { return };
                inner.connected();
                drop(inner);
                pause = FIRST_PAUSE;
                loop {
                    let Some(inner) = provider.upgrade() else { return };
                    let until = inner.wake_if_due(wake);
                    drop(inner);
                    match link.hear(until) {
                        Ok(messages) => {
                            let Some(inner) = provider.upgrade() else { return };
                            messages.iter().for_each(|message| inner.hear(message));
                        }
                        Err(why) => break why,
                    }
                }
            }
            Err(why) => why,
        };
        let Some(inner) = provider.upgrade() else { return };
        if inner.lost(why.0) {
            // Whoever waits for the next rare observation must not.
            wake();
        }
        drop(inner);
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl<C: Calls> Inner<C> {
    /// A whole observation, or, while the bus is heard and the last one is not old, what is new.
    pub(super) fn observe(&self) -> Result<Observed, Error> {
        if self.needs_whole() {
            self.fresh()?;
            let reach = self.reach();
            let mut memory = self.memory();
            memory.news.given = memory.observed();
            return Ok(Observed::Whole(fold::view(
                self.rules(&reach),
                &memory.ours,
                &memory.hosts,
            )));
        }
        let answer = match self.ask() {
            Ok(answer) => answer,
            Err(error) => {
                self.memory().news.call_for_whole_now(Instant::now());
                return Err(error);
            }
        };
        let reach = self.reach();
        // At once: an end that an order finds here, and forgets, must be told too.
        let mut memory = self.memory();
        if let Some(Answer { ids, details, began }) = answer {
            memory.answered(&self.settings.cluster, &ids, details, began, now());
        }
        Ok(Observed::News(self.news(&mut memory, &reach)))
    }

    pub(super) fn needs_whole(&self) -> bool {
        let (mut memory, now) = (self.memory(), Instant::now());
        memory.news.count_missed(now);
        let mut bus = self.bus();
        bus.count(&mut memory.news);
        self.wakes().waits = false;
        let old = |began| now.duration_since(began) >= self.settings.events.poll;
        // One that a creation or an end needed took what was new with it.
        let others = memory.news.given != memory.observed();
        others || !bus.is_heard() || memory.news.is_whole_due(now) || memory.observed().is_none_or(old)
    }

    /// Asks oned for the VMs of which it is to be asked, if it is time.
    fn ask(&self) -> Result<Option<Answer>, Error> {
        let began = Instant::now();
        let ids = self.memory().news.take_asks(self.asks_apart(), began);
        if ids.is_empty() {
            return Ok(None);
        }
        let me = self.me()?;
        let mut details = self.calls.vms_of(&ids)?;
        // A VM of another user is not ours, whatever its tags say.
        details.retain(|vm| vm.owner.0 == me);
        Ok(Some(Answer { ids, details, began }))
    }

    /// What is newer than the last whole observation.
    fn news(&self, memory: &mut Memory, reach: &Reach) -> Vec<News> {
        let now = Instant::now();
        let said: BTreeMap<u32, Said> = memory.news.fetch().collect();
        let ours = said
            .keys()
            .filter_map(|id| Some((*id, memory.ours.get(id)?.clone())));
        let view = fold::view(self.rules(reach), &ours.collect(), &[]);
        let of = |vm: VmView| {
            let said = said.get(&vm.id.as_str().parse().ok()?)?;
            let asked = match said {
                Said::Told(_) => None,
                Said::Asked(at) => Some(now.duration_since(*at)),
            };
            Some(News { vm, asked })
        };
        view.vms.into_iter().filter_map(of).collect()
    }

    /// How far apart calls are that ask for single VMs, in the long run: a sixth of all that there may be.
    fn asks_apart(&self) -> Duration {
        match self.settings.access.requests_per_second {
            0 => ASKS_APART,
            rate => Duration::from_secs(6) / rate,
        }
    }

    /// Wakes the controller if there is something to fetch; until when to listen.
    fn wake_if_due(&self, wake: &Wake) -> Instant {
        let now = Instant::now();
        let due = {
            let memory = self.memory();
            let news = memory.news.due();
            match memory.observed() {
                None => news,
                Some(began) if self.bus().is_heard() => {
                    let old = began + self.settings.events.poll;
                    Some(news.map_or(old, |due| due.min(old)))
                }
                // Then all is asked for each time.
                Some(began) => news.map(|due| due.max(began + WHOLE_APART)),
            }
        };
        let Some(due) = due else { return now + NAP };
        let mut wakes = self.wakes();
        let at = wakes.at(due);
        if at > now {
            return at.min(now + NAP);
        }
        *wakes = Wakes {
            last: Some(now),
            waits: true,
        };
        drop(wakes);
        wake();
        now + NAP.min(WAKES_APART)
    }

    pub(super) fn connected(&self) {
        let now = Instant::now();
        let mut memory = self.memory();
        memory.news.connected();
        memory.news.call_for_whole_now(now);
        self.bus().connected(now);
    }

    /// The bus is not heard; whether it was.
    pub(super) fn lost(&self, why: String) -> bool {
        let mut bus = self.bus();
        let was = bus.since().is_some();
        bus.lost(why);
        was
    }

    /// Takes a message in.
    pub(super) fn hear(&self, message: &Message) {
        self.bus().told();
        if let Some(id) = message::vm_id(message)
            && matches!(self.memory().tag_of(id), Some(None))
        {
            return;
        }
        let Some(event) = message::event(message) else {
            return;
        };
        let now = now();
        let mut memory = self.memory();
        match event {
            Event::Vm(id, vm) => memory.hear(&self.settings.cluster, id, vm.map(|vm| *vm), now),
            Event::VmChanged(id) => memory.hear_of_change(id, now.instant),
            Event::Pool => {
                let last = memory.observed().unwrap_or(now.instant);
                memory.news.call_for_whole(now.instant, last);
            }
        }
    }
}
