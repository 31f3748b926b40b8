#include "node-agent/host/nft.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <nftables/libnftables.h>

#include <memory>

#include "node-agent/host/netlink_raw.h"

namespace dormouse::host {
namespace {

struct FreeContext {
  void operator()(nft_ctx* owned) const { nft_ctx_free(owned); }
};

std::string FirstLine(const char* text) {
  const std::string all = text == nullptr ? "" : text;
  return all.substr(0, all.find('\n'));
}

// What was read is torn when another transaction is committed meanwhile (NLM_F_DUMP_INTR, EINTR):
// with many sandboxes starting at once that is common. Nothing was changed, so it is done again.
constexpr int kTries = 10;
constexpr char kTorn[] = "Interrupted system call";

// Output or the error in nft's words, kNotFound where they say so.
Result<std::string> Run(const std::string& commands, unsigned output_flags,
                        const std::string& what) {
  const std::unique_ptr<nft_ctx, FreeContext> context(nft_ctx_new(NFT_CTX_DEFAULT));
  if (!context || nft_ctx_buffer_output(context.get()) != 0 ||
      nft_ctx_buffer_error(context.get()) != 0) {
    return Fail(ErrorCode::kInternal, "nft: no context");
  }
  nft_ctx_output_set_flags(context.get(), output_flags);
  std::string words;
  for (int i = 0; i < kTries; ++i) {
    if (nft_run_cmd_from_buffer(context.get(), commands.c_str()) == 0) {
      const char* output = nft_ctx_get_output_buffer(context.get());
      return std::string(output == nullptr ? "" : output);
    }
    words = FirstLine(nft_ctx_get_error_buffer(context.get()));
    if (words.find(kTorn) == std::string::npos) break;
  }
  ErrorCode code = ErrorCode::kInternal;
  if (words.find("No such file or directory") != std::string::npos) code = ErrorCode::kNotFound;
  if (words.find("File exists") != std::string::npos) code = ErrorCode::kAlreadyExists;
  return Fail(code, what + ": " + words);
}

}  // namespace

Result<> ApplyNft(const std::string& commands) {
  return Run(commands, 0, "nft").map([](const std::string&) {});
}

Result<std::string> ReadNftJson(const std::string& command) {
  return Run(command, NFT_CTX_OUTPUT_JSON, "nft " + command);
}

Result<std::optional<std::string>> ReadTableComment(const std::string& name) {
  // libnftnl's NFTNL_UDATA_TABLE_COMMENT: records of a type, a length and a value.
  constexpr char kCommentType = 0;
  const nfgenmsg family{NFPROTO_INET, NFNETLINK_V0, 0};
  const auto answer =
      NetlinkQuestion((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETTABLE, BytesOf(family))
          .Add(NFTA_TABLE_NAME, std::string_view(name.c_str(), name.size() + 1))
          .Ask(NETLINK_NETFILTER);
  if (!answer && answer.error().code() == ErrorCode::kNotFound) return std::nullopt;
  if (!answer) return Fail(answer.error().Wrap("read table " + name));
  const NetlinkMessage table{reinterpret_cast<const nlmsghdr*>(answer->data())};
  std::string_view data = table.Attribute(sizeof(nfgenmsg), NFTA_TABLE_USERDATA).value_or("");
  while (data.size() >= 2) {
    const auto length = static_cast<unsigned char>(data[1]);
    const std::string_view value = data.substr(2, length);
    if (data[0] == kCommentType) return std::string(value.substr(0, value.find('\0')));
    data.remove_prefix(std::min<size_t>(data.size(), 2U + length));
  }
  return std::string();
}

}  // namespace dormouse::host
