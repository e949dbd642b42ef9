//! What a guest is told by OpenNebula's context disk, and what guest and host
//! say to each other on the channel.

use crate::input::{says_something, text};
use thiao_guest::context_disk::{ContextDisk, DESCRIPTOR_LEN, is_context_disk, variables};
use thiao_guest::dns;
use thiao_guest::protocol::{Report, Request};

/// What is read is no more than there was, and a message is read as it was written.
pub fn check(input: &[u8]) {
    let text = text(input);
    match variables(&text) {
        Ok(variables) => {
            let size: usize = variables
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum();
            assert!(size <= text.len(), "more than there was");
        }
        Err(error) => says_something(&error, input),
    }
    let told = ContextDisk::read(&text, Some("token"));
    match told {
        Ok(told) => {
            assert!((1..=32).contains(&told.card.prefix_len), "{told:?}");
            if let Some(onegate) = told.onegate {
                let request = onegate.ready();
                // Nothing that OpenNebula says adds a header.
                assert_eq!(request.matches("\r\n").count(), 8, "{request:?}");
            }
        }
        Err(error) => says_something(&error, input),
    }
    if let Some(question) = dns::question(7, &text) {
        // Whatever follows the question, an address in it stood there.
        let answer = [&question, input].concat();
        if let Some(address) = dns::address(&question, &answer) {
            assert!(
                answer.windows(4).any(|four| four == address.octets()),
                "{address}"
            );
        }
    }
    let _ = dns::address(input, input);
    assert!(!is_context_disk(input) || input.len() >= DESCRIPTOR_LEN);
    again::<Request>(input);
    again::<Report>(input);
}

/// What was understood is said the same way, in one line.
fn again<T>(input: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    if let Ok(message) = serde_json::from_slice::<T>(input) {
        let line = serde_json::to_string(&message).expect("it can be written");
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<T>(&line).ok(), Some(message));
    }
}
