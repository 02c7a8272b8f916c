// SPDX-License-Identifier: GPL-2.0-or-later
//! The two files of `joold`.

use super::json::{Fault, Node};
use super::name_of;
use crate::cli::proxy::{self, ProxyConfig};
use crate::model::DEFAULT_INSTANCE;

/// Reads what `netsocket.json` says.
pub(super) fn netsocket(root: Node<'_>) -> Result<ProxyConfig, Fault<'_>> {
    let [group, port, dev_in, dev_out, reuse, ttl, format] = root.members([
        "multicast address",
        "multicast port",
        "in interface",
        "out interface",
        "reuseaddr",
        "ttl",
        "format",
    ])?;
    let group = root.must("multicast address", group)?;
    let mut config = ProxyConfig::new(group.judge(proxy::group(&group.text()?))?);
    if let Some(node) = port {
        // Jool wants a text here even for a number.
        let text = if node.is_text() {
            node.text()?
        } else {
            node.number(u16::MAX.into())?.to_string()
        };
        config.network.port = node.judge(proxy::port(&text, "udp"))?;
    }
    if let Some(node) = dev_in {
        config.network.dev_in = Some(node.judge(config.device(&node.text()?))?);
    }
    if let Some(node) = dev_out {
        config.network.dev_out = Some(node.judge(config.device(&node.text()?))?);
    }
    if let Some(node) = reuse {
        // The address is always shared.
        node.number(u32::MAX)?;
    }
    if let Some(node) = ttl {
        let number = node.number(u8::MAX.into())?;
        config.network.ttl = node.judge(proxy::ttl(&number.to_string()))?;
    }
    if let Some(node) = format {
        config.network.format = node.judge(proxy::format(&node.text()?))?;
    }
    Ok(config)
}

/// Reads the instance that `modsocket.json` names.
pub(super) fn modsocket(root: Node<'_>) -> Result<String, Fault<'_>> {
    let [name] = root.members(["instance"])?;
    match name {
        Some(name) => name_of(name),
        None => Ok(DEFAULT_INSTANCE.to_owned()),
    }
}
