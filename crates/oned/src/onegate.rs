//! OneGate: guests say that they are ready, and look at themselves.

use crate::driver::Shared;
use crate::http::{Reply, Request};
use crate::template::parse;
use crate::vm::merge;
use std::fmt::Write as _;
use thiao_opennebula::syntax::Value;

fn answer(status: u16, body: String) -> Reply {
    Reply::Answer {
        status,
        kind: "application/json;charset=utf-8",
        body: body.into_bytes(),
    }
}

/// One request of a guest.
pub fn serve(shared: &Shared, request: &Request) -> Reply {
    if request.path != "/vm" {
        return answer(404, "Not found".into());
    }
    let id = request
        .header("x-onegate-vmid")
        .and_then(|text| text.parse::<u32>().ok());
    let token = request.header("x-onegate-token").unwrap_or_default();
    let mut front_end = shared.lock();
    *front_end
        .counters
        .entry(format!("onegate {}", request.method))
        .or_default() += 1;
    let Some(vm) = id.and_then(|id| front_end.vm_mut(id)) else {
        return answer(401, "Not authorized".into());
    };
    if vm.token.is_none() || vm.token.as_deref() != Some(token) {
        return answer(401, "Not authorized".into());
    }
    match request.method.as_str() {
        "GET" => answer(200, describe(vm)),
        "PUT" | "POST" => {
            let Ok(text) = std::str::from_utf8(&request.body) else {
                return answer(400, "Not UTF-8".into());
            };
            let Ok(template) = parse(text) else {
                return answer(500, "Parse error".into());
            };
            if let Some((key, _)) = template.0.iter().find(|(key, _)| key == "SCHED_REQUIREMENTS") {
                return answer(403, format!("Attribute ({key}) cannot be modified"));
            }
            merge(&mut vm.user_template, template);
            let id = vm.id;
            front_end.tell_update(id, text);
            answer(200, String::new())
        }
        _ => answer(405, "Method not allowed".into()),
    }
}

fn describe(vm: &crate::vm::Vm) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "{{\"VM\":{{\"NAME\":{},\"ID\":\"{}\",\"STATE\":\"{}\",\"LCM_STATE\":\"{}\",\"USER_TEMPLATE\":{{",
        json(&vm.name),
        vm.id,
        vm.state.number(),
        vm.state.lcm_number()
    );
    let tags: Vec<String> = vm
        .tags()
        .iter()
        .map(|(key, text)| format!("{}:{}", json(key), json(text)))
        .collect();
    out.push_str(&tags.join(","));
    out.push_str("},\"TEMPLATE\":{\"NIC\":[");
    let nics: Vec<String> = vm
        .template
        .0
        .iter()
        .filter_map(|(key, value)| match value {
            Value::Vector(pairs) if key == "NIC" => {
                let parts: Vec<String> = pairs
                    .iter()
                    .filter(|(key, _)| matches!(key.as_str(), "IP" | "MAC" | "NETWORK"))
                    .map(|(key, text)| format!("{}:{}", json(key), json(text)))
                    .collect();
                Some(format!("{{{}}}", parts.join(",")))
            }
            Value::Vector(_) | Value::Single(_) => None,
        })
        .collect();
    out.push_str(&nics.join(","));
    out.push_str("]}}}");
    out
}

fn json(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c < ' ' => _ = write!(out, "\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
