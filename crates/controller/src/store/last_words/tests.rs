use super::*;
use crate::store::Store;
use thiao_core::journal::{Entry, Journal as _};
use thiao_core::table::Table;

fn words(generation: u64, badly: bool, text: &str) -> LastWords {
    LastWords {
        node: NodeName::new("a").unwrap(),
        generation: Generation(generation),
        badly,
        text: text.to_owned(),
    }
}

fn save(store: &mut Store, last_words: Vec<LastWords>, now: u64) {
    let round = Entry {
        last_words,
        ..Entry::default()
    };
    store.save(&Table::new(), &round, Time(now)).unwrap();
}

#[test]
fn the_first_that_is_read_is_kept_and_the_oldest_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("thiao.db")).unwrap();
    let node = NodeName::new("a").unwrap();
    save(&mut store, vec![words(1, true, "Unauthorized credential\n")], 10);
    save(&mut store, vec![words(1, true, "")], 11);
    let kept = store.past().last_words(&node, Generation(1)).unwrap().unwrap();
    assert_eq!(
        (kept.at, kept.text.as_str()),
        (Time(10), "Unauthorized credential\n")
    );
    // Those that ended as they should do not push out the others.
    for generation in 2..=602 {
        save(
            &mut store,
            vec![words(generation, false, "bye")],
            100 + generation,
        );
    }
    assert!(store.past().last_words(&node, Generation(1)).unwrap().is_some());
    assert!(store.past().last_words(&node, Generation(102)).unwrap().is_none());
    assert!(store.past().last_words(&node, Generation(103)).unwrap().is_some());
    assert_eq!(store.past().last_bad_vm(&node).unwrap(), Some(Generation(1)));
    store.prune(Time(50)).unwrap();
    assert!(store.past().last_words(&node, Generation(1)).unwrap().is_none());
}

#[test]
fn of_one_vm_the_last_lines_are_kept() {
    assert_eq!(tail("a\nb\n"), "a\nb\n");
    let long = format!("first{}\nsecond\nthird\n", "é".repeat(MOST));
    assert_eq!(tail(&long), "second\nthird\n");
    let endless = "é".repeat(MOST);
    assert!(tail(&endless).len() <= MOST && !tail(&endless).is_empty());
}
