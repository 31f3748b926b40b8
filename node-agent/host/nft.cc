#include "node-agent/host/nft.h"

#include <nftables/libnftables.h>

#include <memory>

namespace dormouse::host {
namespace {

struct FreeContext {
  void operator()(nft_ctx* context) const { nft_ctx_free(context); }
};
using Context = std::unique_ptr<nft_ctx, FreeContext>;

Result<Context> NewContext() {
  Context context(nft_ctx_new(NFT_CTX_DEFAULT));
  if (!context || nft_ctx_buffer_output(context.get()) != 0 ||
      nft_ctx_buffer_error(context.get()) != 0) {
    return Fail(ErrorCode::kInternal, "nft: no context");
  }
  return context;
}

std::string FirstLine(const char* text) {
  const std::string all = text == nullptr ? "" : text;
  return all.substr(0, all.find('\n'));
}

}  // namespace

Result<> ApplyNft(const std::string& commands) {
  DORMOUSE_ASSIGN(const Context context, NewContext());
  if (nft_run_cmd_from_buffer(context.get(), commands.c_str()) == 0) return {};
  const std::string words = FirstLine(nft_ctx_get_error_buffer(context.get()));
  const bool missing = words.find("No such file or directory") != std::string::npos;
  return Fail(missing ? ErrorCode::kNotFound : ErrorCode::kInternal, "nft: " + words);
}

Result<std::string> ReadNftJson(const std::string& command) {
  DORMOUSE_ASSIGN(const Context context, NewContext());
  nft_ctx_output_set_flags(context.get(), NFT_CTX_OUTPUT_JSON);
  if (nft_run_cmd_from_buffer(context.get(), command.c_str()) == 0) {
    const char* output = nft_ctx_get_output_buffer(context.get());
    return std::string(output == nullptr ? "" : output);
  }
  const std::string words = FirstLine(nft_ctx_get_error_buffer(context.get()));
  const bool missing = words.find("No such file or directory") != std::string::npos;
  return Fail(missing ? ErrorCode::kNotFound : ErrorCode::kInternal,
              "nft " + command + ": " + words);
}

}  // namespace dormouse::host
