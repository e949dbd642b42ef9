//! How that which tells the provider of its VMs is heard, in words for people.

use crate::provider::{Hearing, Listening};
use thiao_api::types::EventBus;
use thiao_core::event::{Event, Kind, Subject};

/// What people were told last of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Heard,
    NotHeard,
    NotReliedOn,
}

impl Told {
    /// What there is to tell; nothing as long as nothing has come.
    fn of(hearing: &Hearing) -> Option<Self> {
        match hearing {
            Hearing::Well(_) => Some(Self::Heard),
            Hearing::Not(_) => Some(Self::NotHeard),
            Hearing::Badly(_) => Some(Self::NotReliedOn),
            Hearing::Nothing => None,
        }
    }
}

/// How it is heard, in a sentence.
fn words(address: &str, hearing: &Hearing) -> String {
    match hearing {
        Hearing::Well(states) => format!("heard at {address}: {states} states of our VMs so far"),
        Hearing::Nothing => format!("connected to {address}, and nothing has come yet: polled as without"),
        Hearing::Not(why) => format!("not heard at {address} ({why}): polled as without"),
        Hearing::Badly(missed) => {
            format!("not relied on at {address}, which left out {missed} states lately: polled as without")
        }
    }
}

/// What the API says of it.
pub fn shown(listening: &Listening) -> EventBus {
    EventBus {
        address: listening.address.clone(),
        configured: listening.configured,
        relied_on: matches!(listening.hearing, Hearing::Well(_)),
        silent: listening.hearing == Hearing::Nothing,
        text: words(&listening.address, &listening.hearing),
    }
}

/// What is to be told of how it is heard, after what was `told` last.
pub fn news(listening: &Listening, told: Option<Told>) -> Option<(Told, Event)> {
    let now = Told::of(&listening.hearing).filter(|now| told != Some(*now))?;
    let words = words(&listening.address, &listening.hearing);
    let (kind, text) = match now {
        Told::Heard => (
            Kind::BusHeard,
            format!("OpenNebula's events are heard at {}", listening.address),
        ),
        Told::NotHeard if !listening.configured => (
            Kind::BusNotHeard,
            format!(
                "OpenNebula's events are {words}. Nothing depends on them; docs/opennebula.md says how to have them heard"
            ),
        ),
        Told::NotHeard | Told::NotReliedOn => (Kind::BusNotHeard, format!("OpenNebula's events are {words}")),
    };
    Some((now, Event::new(Subject::Provider, kind, text)))
}
