-- KEYS: the index of the sid or the subject. ARGV: index of the subject for a sid or "", latest by sid, latest by subject,
-- now, issued at, id, retention of the tombstone, retention of the marks, reason
only_here()
local subject, by_sid, by_subject = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local marks, reason = tonumber(ARGV[10]), ARGV[11]
local ended, unreadable, others = {}, false, false

-- Ends those of an index that fit, and notes whether there are others.
local function finish_all(index, fits)
    for _, hex in ipairs(redis.call('SMEMBERS', index)) do
        local is_readable, head = pcall(read, redis.call('GET', prefix .. ':s:' .. hex))
        if not is_readable then
            unreadable = true
        elseif not head then
            redis.call('SREM', index, hex)
        elseif fits(head) then
            ended[#ended + 1] = hex
            ended[#ended + 1] = finish(hex, reason, marks)
        else
            others = true
        end
    end
end

-- A token that is older than the retention overtakes nobody; by the replica's clock and by ours, one of which may be ahead.
local issued_at, retention = ARGV[7], tonumber(ARGV[9])
local buries = issued_at == '' or math.min(tonumber(ARGV[6]), now()) <= tonumber(issued_at) + retention
if buries then
    bury(KEYS[1], issued_at, ARGV[8], retention)
else
    -- Asked for again it has to be on the replicas all the same.
    redis.call('SET', prefix .. ':asked', '', 'PX', 1000)
end
if by_sid then
    finish_all(KEYS[1], function(head) return head.t <= by_sid end)
    -- No later logout token could reach the sessions that have no sid, nor the logins on their way to be such.
    if #ended == 0 and not others and not unreadable and subject ~= '' then
        if buries then bury(without_sid(subject), issued_at, ARGV[8], retention) end
        finish_all(subject, function(head) return head.i == '' and head.t <= by_subject end)
    end
else
    finish_all(KEYS[1], function(head) return not by_subject or head.t <= by_subject end)
end
-- The others have ended, this one may have to: it is not said that all is done.
if unreadable then return redis.error_reply('ERR a stored session cannot be read') end
return ended
