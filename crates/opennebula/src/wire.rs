//! XML-RPC: the bytes of calls and answers.
