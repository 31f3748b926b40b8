// nftables rules by libnftables: one string of commands is one atomic transaction of the namespace
// that the calling thread is in.
//
// Thread-safe: a context of its own for each call. The kernel closes a context's socket only when
// what any namespace has deleted is freed, a grace period later (nft_rcv_nl_event() in
// net/netfilter/nf_tables_api.c), so none of these belongs in the way of a start.
#pragma once

#include <optional>
#include <string>

#include "src/common/base/result.h"

namespace dormouse::host {

/// Applies all of `commands` (nft's own language) or none. The error has nft's words;
/// kAlreadyExists where `create` met what is there.
Result<> ApplyNft(const std::string& commands);
/// `nft -j <command>`, e.g. "list table inet dormouse"; kNotFound when there is no such object.
Result<std::string> ReadNftJson(const std::string& command);
/// The comment of table "inet <name>", empty where it has none; nothing when there is no such
/// table. One message each way: cheap enough for every look.
Result<std::optional<std::string>> ReadTableComment(const std::string& name);

}  // namespace dormouse::host
