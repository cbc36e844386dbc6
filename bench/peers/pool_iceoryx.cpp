/* pool_iceoryx.cpp - the pool of iceoryx by itself, as its publishers use it (MemoryManager, SharedChunk), without its daemon. */
#include "../bench.h"
#include "iceoryx_hoofs/log/logmanager.hpp"
#include "iceoryx_posh/internal/mepoo/memory_manager.hpp"
#include "iceoryx_posh/internal/mepoo/shared_chunk.hpp"
#include "iceoryx_posh/mepoo/chunk_settings.hpp"
#include "iceoryx_posh/mepoo/mepoo_config.hpp"

using iox::mepoo::SharedChunk;
struct user { int none; };
#define CAN_POOL
#define CAN_HOLD 1
static iox::mepoo::MemoryManager *manager;
static iox::mepoo::ChunkSettings *settings;

static void user_open(struct user *, int)
{
    if (manager) return;
    iox::log::LogManager::GetLogManager().SetDefaultLogLevel(iox::log::LogLevel::kOff, iox::log::LogLevelOutput::kHideLogLevel);
    static const uint32_t bytes[] = { 64, 256, 1024, 4096, 16384 }, counts[] = { 2000, 1000, 300, 60, 15 };
    iox::mepoo::MePooConfig config;
    for (int k = 0; k < 5; k++) config.addMemPool({ bytes[k] + 64, counts[k] }); /* room for its own header */
    uint64_t size = iox::mepoo::MemoryManager::requiredFullMemorySize(config) + 4096;
    iox::posix::Allocator *memory = new iox::posix::Allocator(shared_memory(size), size);
    manager = new iox::mepoo::MemoryManager;
    manager->configureMemoryManager(config, *memory, *memory);
    settings = new iox::mepoo::ChunkSettings(iox::mepoo::ChunkSettings::create(ROW_BYTES).value());
}
static void user_close(struct user *) {}
static iox::mepoo::ChunkManagement *chunk_of(uint64_t token) { return (iox::mepoo::ChunkManagement *)token; }

INLINE void *take(struct user *, uint64_t *token)
{
    auto chunk = manager->getChunk(*settings);
    if (chunk.has_error()) die("getChunk", "failed");
    void *data = chunk.value().getUserPayload();
    *token = (uint64_t)chunk.value().release();
    return data;
}
INLINE void *payload(struct user *, uint64_t token)
{
    SharedChunk chunk(chunk_of(token));
    void *data = chunk.getUserPayload();
    chunk.release();
    return data;
}
INLINE void hold(struct user *, uint64_t token)
{
    SharedChunk chunk(chunk_of(token)), copy(chunk);
    chunk.release(), copy.release();
}
INLINE void drop(struct user *, uint64_t token) { SharedChunk chunk(chunk_of(token)); }
#include "../main.h"
