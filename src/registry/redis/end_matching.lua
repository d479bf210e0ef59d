-- KEYS: the index of the sid or the subject. ARGV: kind, index of the subject or "", issued at, tolerance, now,
-- retention, reason
local kind, subject, latest = ARGV[3], ARGV[4], tonumber(ARGV[5]) + tonumber(ARGV[6])
local now, retention, reason = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]
local ended, unreadable = {}, false

local function finish_all(index, fits)
    for _, hex in ipairs(redis.call('SMEMBERS', index)) do
        local is_readable, head = pcall(read, redis.call('GET', prefix .. ':s:' .. hex))
        if not is_readable then
            unreadable = true
        elseif not head then
            redis.call('SREM', index, hex)
        elseif fits(head) then
            local value = finish(hex, reason, retention)
            if value then
                ended[#ended + 1] = hex
                ended[#ended + 1] = value
            end
        end
    end
end

local tomb = KEYS[1] .. ':t'
if kind == 'sid' then
    redis.call('SET', tomb, now + retention, 'PX', retention)
    finish_all(KEYS[1], function(_) return true end)
    -- No later logout token could reach the sessions that have no sid.
    if #ended == 0 and subject ~= '' then
        finish_all(subject, function(head) return head.i == '' and head.t <= latest end)
    end
else
    local known = redis.call('HGET', tomb, 'iat')
    local issued_at = tonumber(ARGV[5])
    if known and tonumber(known) > issued_at then issued_at = tonumber(known) end
    redis.call('HSET', tomb, 'iat', issued_at, 'until', now + retention)
    redis.call('PEXPIRE', tomb, retention)
    finish_all(KEYS[1], function(head) return head.t <= latest end)
end
-- The others have ended, this one may have to: it is not said that all is done.
if unreadable then return redis.error_reply('ERR a stored session cannot be read') end
return ended
