#include "node-agent/host/nft.h"

#include <nftables/libnftables.h>

namespace dormouse::host {
namespace {

std::string FirstLine(const char* text) {
  const std::string all = text == nullptr ? "" : text;
  return all.substr(0, all.find('\n'));
}

// What was read is torn when another transaction is committed meanwhile (NLM_F_DUMP_INTR, EINTR):
// with many sandboxes starting at once that is common. Nothing was changed, so it is done again.
constexpr int kTries = 10;
constexpr char kTorn[] = "Interrupted system call";

}  // namespace

struct NftContext::Impl {
  struct Freer {
    void operator()(nft_ctx* owned) const { nft_ctx_free(owned); }
  };
  std::unique_ptr<nft_ctx, Freer> context;
};

NftContext::NftContext(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
NftContext::NftContext(NftContext&&) noexcept = default;
NftContext& NftContext::operator=(NftContext&&) noexcept = default;
NftContext::~NftContext() = default;

Result<NftContext> NftContext::Open() {
  auto impl = std::make_unique<Impl>();
  impl->context.reset(nft_ctx_new(NFT_CTX_DEFAULT));
  if (!impl->context || nft_ctx_buffer_output(impl->context.get()) != 0 ||
      nft_ctx_buffer_error(impl->context.get()) != 0) {
    return Fail(ErrorCode::kInternal, "nft: no context");
  }
  return NftContext(std::move(impl));
}

// Output or the error in nft's words, kNotFound where they say so.
Result<std::string> NftContext::Run(const std::string& commands, unsigned output_flags,
                                    const std::string& what) {
  nft_ctx* const context = impl_->context.get();
  nft_ctx_output_set_flags(context, output_flags);
  std::string words;
  for (int i = 0; i < kTries; ++i) {
    if (nft_run_cmd_from_buffer(context, commands.c_str()) == 0) {
      const char* output = nft_ctx_get_output_buffer(context);
      return std::string(output == nullptr ? "" : output);
    }
    words = FirstLine(nft_ctx_get_error_buffer(context));
    if (words.find(kTorn) == std::string::npos) break;
  }
  ErrorCode code = ErrorCode::kInternal;
  if (words.find("No such file or directory") != std::string::npos) code = ErrorCode::kNotFound;
  if (words.find("File exists") != std::string::npos) code = ErrorCode::kAlreadyExists;
  return Fail(code, what + ": " + words);
}

Result<> NftContext::Apply(const std::string& commands) {
  return Run(commands, 0, "nft").map([](const std::string&) {});
}

Result<std::string> NftContext::ReadJson(const std::string& command) {
  return Run(command, NFT_CTX_OUTPUT_JSON, "nft " + command);
}

Result<> ApplyNft(const std::string& commands) {
  DORMOUSE_ASSIGN(NftContext context, NftContext::Open());
  return context.Apply(commands);
}

Result<std::string> ReadNftJson(const std::string& command) {
  DORMOUSE_ASSIGN(NftContext context, NftContext::Open());
  return context.ReadJson(command);
}

}  // namespace dormouse::host
