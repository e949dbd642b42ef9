//! Sharing by levels of attained service.

use crate::job::{JobId, Ms};
use crate::policy::Levels;
use crate::state::{Entry, State};

/// What is remembered between decisions.
#[derive(Debug)]
pub struct Deciding {
    #[allow(dead_code)]
    how: Levels,
}

impl Deciding {
    pub fn new(how: Levels, _state: &State) -> Self {
        Self { how }
    }
    pub fn submitted(&mut self, _state: &State, _id: JobId) {}
    pub fn ended(&mut self, _id: JobId, _entry: &Entry) {}
    pub fn decide(&mut self, _state: &mut State, _now: Ms) {}
    pub fn next(&self) -> Option<Ms> {
        None
    }
}
