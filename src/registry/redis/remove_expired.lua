-- ARGV: limit, retention of the marks
local removed = {}
for _, hex in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now()), 'LIMIT', 0, tonumber(ARGV[3]))) do
    local is_readable, value = pcall(finish, hex, nil, tonumber(ARGV[4]))
    redis.call('ZREM', KEYS[1], hex)
    -- What cannot be read stays for as long as the store keeps it by itself.
    if is_readable and value then
        removed[#removed + 1] = hex
        removed[#removed + 1] = value
    end
end
return removed
