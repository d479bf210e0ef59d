-- ARGV: limit, retention of the marks. Answers how many it looked at, then those that it ended.
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now()), 'LIMIT', 0, tonumber(ARGV[3]))
local answer = {text(#found)}
for _, hex in ipairs(found) do
    local is_readable, head = pcall(read, redis.call('GET', prefix .. ':s:' .. hex))
    -- What cannot be read stays for as long as the store keeps it by itself.
    if is_readable and head then finish(answer, hex, nil, tonumber(ARGV[4])) end
    redis.call('ZREM', KEYS[1], hex)
end
return answer
