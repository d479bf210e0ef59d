-- ARGV: now, limit
local removed = {}
for _, hex in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[3], 'LIMIT', 0, tonumber(ARGV[4]))) do
    local key = prefix .. ':s:' .. hex
    local value = redis.call('GET', key)
    local head = read(value)
    redis.call('ZREM', KEYS[1], hex)
    if head then
        redis.call('DEL', key)
        detach(hex, head)
        removed[#removed + 1] = hex
        removed[#removed + 1] = value
    end
end
return removed
