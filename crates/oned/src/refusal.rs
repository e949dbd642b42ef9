//! What oned says when it refuses a call.

/// The kinds of refusal, which are numbers on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Authentication,
    Authorization,
    NoExists,
    Action,
    Api,
    Internal,
    Allocate,
}

impl Code {
    /// The number on the wire.
    pub fn number(self) -> i32 {
        match self {
            Code::Authentication => 0x100,
            Code::Authorization => 0x200,
            Code::NoExists => 0x400,
            Code::Action => 0x800,
            Code::Api => 0x1000,
            Code::Internal => 0x2000,
            Code::Allocate => 0x4000,
        }
    }
}

/// A call that oned refuses, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its code on the wire.
    pub code: i32,
    /// oned's words, without the method before them.
    pub text: String,
    /// The object that there is not, or -1.
    pub id: i32,
}

impl Refusal {
    /// A refusal with these words, about no object.
    pub fn plain(code: Code, text: &str) -> Self {
        Refusal {
            code: code.number(),
            text: text.to_owned(),
            id: -1,
        }
    }

    /// There is no such object.
    pub fn no_such(what: &str, id: u32) -> Self {
        Self::no_such_signed(what, i32::try_from(id).unwrap_or(i32::MAX))
    }

    /// There is no such object.
    pub fn no_such_signed(what: &str, id: i32) -> Self {
        Refusal {
            code: Code::NoExists.number(),
            text: format!("Error getting {what} [{id}]."),
            id,
        }
    }

    /// The user may not, or his quota is used up.
    pub fn unauthorized(user: u32, why: &str) -> Self {
        Self::plain(Code::Authorization, &format!("User [{user}] : {why}."))
    }
}
