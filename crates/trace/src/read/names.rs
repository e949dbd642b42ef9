//! Names of people and groups, made numbers; what is shown for them is a digest, unless told otherwise.

use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

/// What is shown in place of the names in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// A digest under a random key, which is never written down: the same name has the same digest in one
    /// log, and nobody can find the name by trying, whoever knows all names of a site.
    #[default]
    Hashed,
    /// A digest under this key: the same in all logs that are read with it.
    HashedWith([u8; 32]),
    /// The names as they stand in the log.
    Kept,
}

impl Names {
    /// The key, if there is to be one.
    pub(super) fn key(self) -> anyhow::Result<Option<[u8; 32]>> {
        match self {
            Self::Kept => Ok(None),
            Self::HashedWith(key) => Ok(Some(key)),
            Self::Hashed => {
                let mut key = [0; 32];
                let got = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty());
                anyhow::ensure!(
                    got == Ok(key.len()),
                    "cannot hash the names in the log: the system gives no random numbers"
                );
                Ok(Some(key))
            }
        }
    }
}

/// The names of one kind that were met.
#[derive(Debug)]
pub struct Book {
    kind: &'static str,
    key: Option<[u8; 32]>,
    known: HashMap<String, u32>,
    shown: Vec<String>,
}

impl Book {
    /// With nothing in it.
    pub fn new(kind: &'static str, key: Option<[u8; 32]>) -> Self {
        Self {
            kind,
            key,
            known: HashMap::new(),
            shown: Vec::new(),
        }
    }

    /// The number of a name.
    pub fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.known.get(name) {
            return *number;
        }
        let number = self.shown.len() as u32;
        self.known.insert(name.to_owned(), number);
        self.shown.push(self.show(name));
        number
    }

    fn show(&self, name: &str) -> String {
        match self.key {
            _ if name.is_empty() => "unknown".to_owned(),
            None => name.chars().filter(|letter| !letter.is_control()).collect(),
            Some(key) => {
                let digest = Sha256::new()
                    .chain_update(key)
                    .chain_update(self.kind)
                    .chain_update([0]);
                let digest = digest.chain_update(name).finalize();
                let hex: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
                format!("{}-{hex}", self.kind)
            }
        }
    }

    /// What is shown, by number. The names are forgotten.
    pub fn shown(self) -> Vec<String> {
        self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(key: Option<[u8; 32]>, names: &[&str]) -> Vec<String> {
        let mut book = Book::new("user", key);
        names.iter().for_each(|name| _ = book.number(name));
        book.shown()
    }

    #[test]
    fn a_digest_is_the_same_under_one_key_and_another_under_another() {
        let once = shown(Some([1; 32]), &["anna", "bob", "anna", ""]);
        assert_eq!(once.len(), 3);
        assert_eq!(once, shown(Some([1; 32]), &["anna", "bob", ""]));
        assert_ne!(once[0], once[1]);
        assert_ne!(once[0], shown(Some([2; 32]), &["anna"])[0]);
        assert_eq!(once[2], "unknown");
        assert!(
            once.iter()
                .all(|shown| !shown.contains("anna") && !shown.contains("bob"))
        );
        assert_eq!(shown(None, &["an\u{1b}na"]), ["anna"]);
    }

    #[test]
    fn every_reading_has_a_key_of_its_own_unless_one_is_given() {
        let key = || Names::Hashed.key().expect("random numbers");
        assert_ne!(key(), key());
        assert_eq!(Names::HashedWith([7; 32]).key().expect("the key"), Some([7; 32]));
        assert_eq!(Names::Kept.key().expect("no key"), None);
    }
}
