-- ARGV: now, limit
local removed = {}
for _, hex in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[3], 'LIMIT', 0, tonumber(ARGV[4]))) do
    local key = prefix .. ':s:' .. hex
    local value = redis.call('GET', key)
    local is_readable, head = pcall(read, value)
    redis.call('ZREM', KEYS[1], hex)
    -- What cannot be read stays for as long as the store keeps it by itself.
    if is_readable and head then
        redis.call('DEL', key)
        detach(hex, head)
        removed[#removed + 1] = hex
        removed[#removed + 1] = value
    end
end
return removed
