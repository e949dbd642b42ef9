//! What an observation of the provider says of hosts, told once.

use crate::event::{Event, Kind, Subject};
use crate::ids::HostName;
use crate::view::HostView;
use crate::world::World;
use std::collections::BTreeMap;

impl World {
    /// What is new of the hosts. Of those that the first observation shows, only what is wrong.
    pub(super) fn see_hosts(&mut self, shown: &[HostView]) -> Vec<Event> {
        let as_before = |before: &BTreeMap<HostName, Option<String>>| {
            let same = |host: &HostView| before.get(&host.name) == Some(&host.closed);
            before.len() == shown.len() && shown.iter().all(same)
        };
        if self.hosts.as_ref().is_some_and(as_before) {
            return Vec::new();
        }
        let hosts: BTreeMap<HostName, Option<String>> = shown
            .iter()
            .map(|host| (host.name.clone(), host.closed.clone()))
            .collect();
        let before = self.hosts.replace(hosts);
        let hosts = self.hosts.iter().flatten();
        let mut events: Vec<Event> = match &before {
            None => hosts
                .filter_map(|(host, closed)| told_closed(host, closed.as_deref()?))
                .collect(),
            Some(before) => hosts
                .filter_map(|(host, is)| told(host, before.get(host), is.as_deref()))
                .collect(),
        };
        let now = self.hosts.as_ref();
        let gone = before
            .iter()
            .flatten()
            .filter(|(host, _)| now.is_some_and(|now| !now.contains_key(*host)));
        events.extend(gone.map(|(host, _)| {
            let text = "the provider shows it no more: it was removed, or we may not see it any more";
            Event::new(Subject::Host(host.clone()), Kind::HostClosed, text)
        }));
        events
    }
}

/// What is to be told of a host that was like `before`, if that was shown.
fn told(host: &HostName, before: Option<&Option<String>>, closed: Option<&str>) -> Option<Event> {
    let open = |text: &str| Some(Event::new(Subject::Host(host.clone()), Kind::HostOpen, text));
    match (before, closed) {
        (Some(before), closed) if before.as_deref() == closed => None,
        (_, Some(why)) => told_closed(host, why),
        (Some(_), None) => open("takes new VMs again"),
        (None, None) => open("is new, and takes VMs"),
    }
}

fn told_closed(host: &HostName, why: &str) -> Option<Event> {
    let text = format!("takes no new VMs: {why}");
    Some(Event::new(Subject::Host(host.clone()), Kind::HostClosed, text))
}
