//! OpenNebula's template syntax, as people's files have it.

use crate::{says_something, text};
use thiao_opennebula::syntax::Template;

pub fn check(input: &[u8]) {
    match Template::parse(&text(input)) {
        Err(error) => says_something(&error, input),
        Ok(template) => {
            template.check().expect("what is read can be kept");
            let written = template.to_text();
            assert_eq!(Template::parse(&written).as_ref(), Ok(&template), "{written}");
        }
    }
}
