//! Orders that people give: on disk before they are told so, or as if never given.

use super::*;
use crate::journal::{Entry, Journal};
use crate::rounds::Rounds;
use crate::table::Table;
use crate::world::NodeRecord;

/// A journal that may be full, and counts what it kept.
#[derive(Default)]
pub(super) struct Disk {
    full: bool,
    events: usize,
}

impl Journal for Disk {
    type Error = ();

    fn load(&mut self) -> Result<Table<NodeName, NodeRecord>, ()> {
        Ok(Table::new())
    }

    fn save(&mut self, _: &Table<NodeName, NodeRecord>, entry: &Entry, _: Time) -> Result<(), ()> {
        if self.full {
            return Err(());
        }
        self.events += entry.events.len();
        Ok(())
    }

    fn is_taken(&self, _: &str) -> Result<bool, ()> {
        Ok(false)
    }

    fn next_action(&self) -> Result<i64, ()> {
        Ok(1)
    }

    fn interrupted(&mut self, _: Time) -> Result<Vec<String>, ()> {
        Ok(Vec::new())
    }
}

#[test]
fn an_order_that_cannot_be_kept_changes_nothing() {
    let mut disk = Disk::default();
    let mut rounds = Rounds::open(&mut disk, world()).unwrap();
    let opened = rounds.world().now;
    rounds.tampered().breaker.opened = Some(opened);
    let before = rounds.world().clone();
    let order = Order::Up {
        force: true,
        jobs: BTreeMap::new(),
    };
    let nodes = [node("n0"), node("n1")];
    disk.full = true;
    assert!(rounds.order_now(&mut disk, &nodes, &order).is_err());
    let after = rounds.world();
    assert_eq!(after.records, before.records);
    assert_eq!(after.breaker, before.breaker, "what --force cleared is back");
    assert!(!rounds.has_news(), "nothing of it is kept later");
    disk.full = false;
    let told = rounds.order_now(&mut disk, &nodes, &order).unwrap();
    assert_eq!((told.len(), disk.events), (2, 2));
    assert_eq!(rounds.world().breaker.opened, None);
    assert!(matches!(
        rounds.world().records[&node("n1")].desired,
        Desired::Up { .. }
    ));
}
