// nftables rules by libnftables: one string of commands is one atomic transaction of the namespace
// that the calling thread is in.
//
// The functions are thread-safe: a context of its own for each call. A context that is kept spares
// making one, and closing it: the kernel closes such a socket only when what any namespace has
// deleted is freed, a grace period later (nft_rcv_nl_event() in net/netfilter/nf_tables_api.c).
#pragma once

#include <memory>
#include <string>

#include "src/common/base/result.h"

namespace dormouse::host {

/// Of the namespace that its threads are in, always the same one: the library may open its socket
/// anew. For one thread at a time.
class NftContext {
 public:
  static Result<NftContext> Open();
  NftContext(NftContext&&) noexcept;
  NftContext& operator=(NftContext&&) noexcept;
  ~NftContext();

  /// As ApplyNft and ReadNftJson.
  Result<> Apply(const std::string& commands);
  Result<std::string> ReadJson(const std::string& command);

 private:
  struct Impl;
  explicit NftContext(std::unique_ptr<Impl> impl);
  Result<std::string> Run(const std::string& commands, unsigned output_flags,
                          const std::string& what);
  std::unique_ptr<Impl> impl_;
};

/// Applies all of `commands` (nft's own language) or none. The error has nft's words;
/// kAlreadyExists where `create` met what is there.
Result<> ApplyNft(const std::string& commands);
/// `nft -j <command>`, e.g. "list table inet dormouse"; kNotFound when there is no such object.
Result<std::string> ReadNftJson(const std::string& command);

}  // namespace dormouse::host
