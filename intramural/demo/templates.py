"""The demonstration's ticket templates, in English and Chinese: nine labels, three per department.

Training templates carry slots of personal data (``{name}``, ``{iban}``, ...; see
`intramural.demo.records`), because a department's mail does. Held-out templates are public: they
carry none, only typed placeholders as a scrubbed text has them (``<PERSON>``) and the harmless
slots of `VARIATIONS`. No template occurs on both sides, so that the metric measures what was
learned about the subject and not a remembered sentence.

This module is text only. It knows nobody's name and no random numbers.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

DEPARTMENTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "finance": ("invoice", "expense", "refund"),
        "hr": ("payroll", "leave", "hiring"),
        "it_support": ("password", "laptop", "network"),
    }
)
"""Department to the labels of the mail that is meant for it."""

LABELS: Final[tuple[str, ...]] = tuple(label for labels in DEPARTMENTS.values() for label in labels)
"""All labels, in the order of the departments."""

TRAINING_EN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "invoice": (
            "Our invoice for the March delivery is still unpaid. Please pay it to {iban} and confirm to {email}. {name}",
            "Invoice attached for the printing job. Payment is due on {date}, account {iban}, account holder {name}.",
            "Last month's bill was only partly paid. Please call me on {phone} about the open balance. {name}, cleaning service",
            "Please send the purchase order number for our bill of {date} so that I can issue a correct invoice. {name}, {email}",
            "The VAT number on our last invoice was wrong. A corrected copy comes from {email}; questions to {name}, {phone}.",
            "Second payment reminder: the invoice we sent on {date} is overdue. Kindly settle it to {iban}. Regards, {first_name}",
            "Please change our supplier bank details to {iban} before you pay the next invoice. Contact: {name}, {phone}.",
            "Our billing address has changed to {address}. Please let us reissue the invoice. {name}",
            "I need a copy of the invoice for the catering on {date}; the vendor says it went to {email}. Thanks, {name}",
            "The supplier {name} bills us for forty chairs, but only thirty came. Can we hold the invoice? Their number is {phone}.",
            "{name} sent a quote and an invoice with different totals. Which one do we pay? Write to {email} please.",
            "Could accounts payable approve the consultant's invoice before {date}? The consultant is {name}, {email}.",
            "As a freelancer I have not been paid for my bill of {date}. My account is {iban} and my phone is {phone}. {first_name}",
            "Please post invoices to {address} from now on, not to the old office. Thanks, {name}",
        ),
        "expense": (
            "I paid the client lunch on {date} with card {card}. Receipts are attached, please reimburse me. {name}",
            "My travel expenses for the trade fair are still open. I submitted the claim on {date}, staff number {employee_id}. {name}",
            "Please reimburse the taxi and the hotel to {iban}. The receipts are in my expense report. {name}, {employee_id}",
            "The train ticket was charged to the company card {card}, but the expense tool rejects the receipt. {name}, {email}",
            "Hello, {first_name} here ({employee_id}). I lost the receipt for the parking fee on {date}; can I still claim it?",
            "Which cost centre do I use for my conference expenses? The corporate card {card} was charged on {date}. {name}",
            "My mileage claim for the drive to {address} was turned down. Why? {name}, {employee_id}",
            "{name} approved my trip, and now the hotel bill of {date} sits on my private card {card}. How do I claim it?",
            "The per diem for my business trip is missing from the expense report of {date}. Call me at {phone}. {name}",
            "Please raise the limit of the company credit card {card}; I travel on {date} and book the flights myself. {name}",
            "The team dinner is on my corporate card {card} but not in my expense list. Please check, {name}, {phone}.",
            "I bought toner and paper for the office with my own card {card}. May I expense it? {name}, {email}",
            "Expense claim attached: flight, two nights and meals. Please pay it out to {iban} by {date}. {name}",
            "My expenses from the customer visit were paid to an old account. The right one is {iban}. {name}, {employee_id}",
        ),
        "refund": (
            "I returned the headset on {date} and still wait for my money back. Please refund it to {iban}. {name}",
            "I was charged twice for one order. Please refund one payment to my card {card}. {name}, {phone}",
            "My order was cancelled, yet the amount was taken from card {card}. I want a refund. {name}, {email}",
            "The chair arrived broken at {address}. I would like to send it back and get a full refund. {name}",
            "When will I get the refund for the damaged parcel? It was promised by {date}. {name}, {email}",
            "You refunded the wrong customer. The money belongs to {name}, account {iban}. Please correct it.",
            "I cancelled my subscription on {date} and was billed again. Please return the amount to {card}. {first_name}",
            "The goods I paid for never came to {address}. Kindly give me my money back. {name}, {phone}",
            "Customer {name} asks for a refund because the size does not fit. The original card was {card}. Reply to {email}.",
            "The shop credited my return only in part. The rest of the refund should go to {iban}. {name}, {phone}",
            "I sent the item back on {date}; a voucher won't do, I want a refund. Contact me at {email}. {name}",
            "Please stop the refund to the old card and send it to {iban} instead. My number is {phone}. {name}",
            "Duplicate payment on {date}: my bank shows two debits on {card}. Please repay one of them. {name}",
            "{name} has returned all the goods in time, so the deposit must be paid back to {iban}. Questions: {email}",
        ),
        "payroll": (
            "My salary for last month has not arrived. My account is {iban}, my staff number {employee_id}. {name}",
            "I changed my bank. From the next payroll run please pay my wages to {iban}. {name}, {employee_id}",
            "The overtime of {date} is missing from my payslip. Please look into it, {name} ({employee_id}).",
            "I can't open the payslip you mailed to {email}. Could you send it again? {name}, {employee_id}",
            "My tax class changed after the wedding. The new name on the payslip should be {name}; my staff ID is {employee_id}.",
            "I moved to {address}; please use it on my salary statement and tax form. {name}",
            "My bonus was taxed twice in the last pay run. Could payroll call me at {phone}? {name}, {employee_id}",
            "Employee {name} ({employee_id}) started on {date}, but no salary has been paid yet.",
            "Please issue an income certificate for {name}, {address}; my bank wants to see my wages by {date}.",
            "My pension contribution on the payslip looks too high. Please explain, {name}, {email}, {employee_id}.",
            "Is the pay rise agreed on {date} included in this month's wages? {name}, {employee_id}",
            "My wages went to a closed account. Please send the salary again to {iban} and ring me at {phone}. {first_name}",
            "I need the annual wage and tax statement for my tax return. Please mail it to {email}. {name}, {employee_id}",
            "The hourly rate in my pay slip is last year's. Since {date} I earn more. {name}, {phone}",
        ),
        "leave": (
            "I would like to take two weeks of annual leave from {date}. Please approve it. {name}, {employee_id}",
            "I am ill and can't come in until {date}. The doctor's note follows. You reach me at {phone}. {name}",
            "How many vacation days do I have left this year? Thank you, {name}, {employee_id}",
            "Our baby is due on {date}. How do I apply for parental leave? {name}, {email}",
            "Please cancel my day off on {date}; I will work after all. {name}, {employee_id}",
            "My father died and I need bereavement leave from {date}. Please call me at {phone}. {name}",
            "I want to carry five unused holiday days over into next year. Is that allowed? {name}, {employee_id}",
            "{name} asked for unpaid leave from {date} and has no answer yet. Please reply to {email}.",
            "During my absence I stay at {address}. My vacation begins on {date}. {name}",
            "My sick note from {date} is not in the system and the days were counted as vacation. {name}, {employee_id}",
            "I'd like to take a sabbatical from {date}. Whom do I ask for the time off? {name}, {email}",
            "My child is sick, so I stay at home until {date}. For urgent matters ring {phone}. {first_name}",
            "The absence calendar shows me as present, yet I have been on maternity leave since {date}. {name}, {employee_id}",
            "Could I swap the public holiday for a day off on {date}? My manager agrees. {name}, {email}",
        ),
        "hiring": (
            "I apply for the accountant position. My CV is attached; you can call me on {phone}. {name}, {address}",
            "Could we move the job interview with {name} to {date}? The candidate can be reached at {email}.",
            "Please send the employment contract to our new colleague {name}, {address}, before {date}.",
            "The candidate {name} accepted our offer and starts on {date}. Please prepare the onboarding.",
            "I had an interview on {date} and wonder whether the position is still open. {name}, {phone}",
            "Can you check the references of the applicant {name}? You reach the former employer at {email} or {phone}.",
            "Please post the vacancy for a data engineer by {date}; applications go to {email}. Thanks, {name}",
            "I withdraw my application for the internship. Please delete my file. {name}, {email}",
            "{name} is the best applicant for the sales job. Please make an offer before {date} and ring {phone}.",
            "Thank you for the talk about the role. My certificates for the application follow from {email}. {name}, {phone}",
            "The recruiter asked for my notice period: I could join on {date}. Best regards, {name}, {email}",
            "Please invite {name} to the second round of interviews on {date}. Phone: {phone}.",
            "As a student I'm looking for a trainee post in your company from {date}. My resume is attached. {name}, {email}",
            "We rejected the candidate {name} by mistake. Please write to {email} and reopen the application.",
        ),
        "password": (
            "I forgot my password and the reset link never reaches {email}. Please help, {name}.",
            "My account is locked after three wrong passwords. User {employee_id}, phone {phone}. {name}",
            "Please reset the login of {name} ({employee_id}); the old password expired on {date}.",
            "The one-time code goes to my old number. The new one is {phone}. I can't sign in. {name}",
            "I get 'invalid credentials' when I log in as {email}. Could you unlock me? {first_name}, {employee_id}",
            "New phone, so the authenticator app is gone. Please reset two-factor sign-in for {name}, {email}.",
            "Somebody tried to log in to my mailbox {email} on {date}. I want to change my password at once. {name}",
            "My PIN for the single sign-on is refused. Call me back on {phone}, please. {name}, {employee_id}",
            "The temporary password you gave {name} doesn't work. Please send a new one to {email}.",
            "I clicked on a phishing mail and typed my password. Please block account {employee_id} and ring {phone}. {name}",
            "Since {date} I'm asked for my password every ten minutes. Please fix the login of {email}. {first_name}",
            "I can't log on to the time sheet portal, my username {employee_id} is unknown. {name}, {phone}",
            "Our new colleague {name} needs a first password and a user account by {date}. Mail: {email}",
            "The security question for password recovery is wrong, so I'm locked out. {name}, {employee_id}, {phone}",
        ),
        "laptop": (
            "My laptop screen has stayed black since {date}. Please send a replacement to {address}. {name}",
            "The battery of my notebook lasts twenty minutes. Can I swap it? {name}, {employee_id}, {phone}",
            "I work from home and need a second monitor and a dock, delivered to {address}. {name}",
            "Coffee went over my keyboard and several keys are dead. Reach me at {phone}. {name}, {employee_id}",
            "My laptop was stolen on the train on {date}. Please lock the device and call me on {phone}. {name}",
            "The new computer for {name} hasn't arrived. Delivery address: {address}, phone {phone}.",
            "The fan of my laptop is loud and it shuts down when hot. {name}, {email}, {employee_id}",
            "I leave the company on {date}. Where do I hand in my laptop and charger? {name}, {employee_id}",
            "Please order a notebook with more memory for {name}; the old one freezes. Questions to {email}.",
            "The hinge of my laptop broke. May the courier pick it up at {address}? {name}, {phone}",
            "The webcam and microphone of my notebook don't work in meetings. {name}, {email}",
            "My docking station doesn't charge the laptop any more. I'm in the office until {date}. {name}, {phone}",
            "After the update on {date} my computer only shows a blue screen. Please ring {phone}. {first_name}",
            "The touchpad jumps and the display has a crack. Device of {name}, {employee_id}. Mail me at {email}.",
        ),
        "network": (
            "The VPN drops every few minutes when I work from home at {address}. {name}, {phone}",
            "There has been no wifi on the third floor since {date}. Please send someone, {name}, {phone}.",
            "I can't reach the shared drive over the VPN. My user is {employee_id}. {name}, {email}",
            "The internet in our branch at {address} is down. Contact on site: {name}, {phone}.",
            "Video calls stutter because the connection is so slow. It began on {date}. {name}, {email}",
            "The network socket at my desk is dead; with the cable I get no address. {name}, {employee_id}, {phone}",
            "The guest wifi should be ready for our visitor {name} on {date}. Please send access to {email}.",
            "Please open the firewall for the new printer server by {date}. Questions to {name}, {phone}.",
            "The VPN client says 'gateway unreachable' as soon as I leave the office. {name}, {email}, {employee_id}",
            "Our router at {address} restarts by itself and the line is gone for minutes. {name}",
            "Since {date} no website loads, only internal pages. Perhaps the DNS? Call {phone}. {first_name}",
            "The wireless signal in the meeting room is too weak for a call. {name}, {email}",
            "I need remote access to the office network from {date}. {name}, {employee_id}, {email}",
            "Downloads crawl at a few kilobytes and the ping is terrible. Please check my line. {name}, {phone}",
        ),
    }
)
"""Label to fourteen English templates with 2 to 4 slots of personal data each."""

TRAINING_ZH: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "invoice": (
            "您好，我是供应商{name}，三月份的发票还没有付款，请联系我：{phone}，或发邮件到{email}。",
            "发票抬头写错了，请按新地址{address}重新开具，联系人{name}，电话{phone}。",
            "请尽快核对这张增值税发票，款项打到卡号{card}，收款人{name}。",
        ),
        "expense": (
            "我出差的住宿费是用卡{card}支付的，报销单已经提交，请审核。{name}，{phone}",
            "客户招待餐费的收据丢了，还能报销吗？我是{name}，邮箱{email}。",
            "差旅报销款一直没到账，我的银行卡号是{card}，身份证号{resident_id}，{name}。",
        ),
        "refund": (
            "我退回的商品已经签收，请把钱退到我的卡{card}。姓名{name}，电话{phone}。",
            "订单重复扣款了，请尽快退款，联系人{name}，邮箱{email}。",
            "货物送到{address}时已经损坏，我要求全额退款。{name}，{phone}",
        ),
        "payroll": (
            "这个月的工资还没有发到我的卡{card}，请人事查一下。{name}，身份证{resident_id}。",
            "我的工资条上少了加班费，麻烦核对。{name}，电话{phone}，邮箱{email}。",
            "我换了银行，从下个月起工资请发到{card}，本人{name}，身份证号{resident_id}。",
        ),
        "leave": (
            "我想从下周一起请五天年假，请批准。{name}，联系电话{phone}。",
            "孩子发烧了，我今天请事假一天，有急事打{phone}。{name}，邮箱{email}",
            "我要申请产假，预产期在六月，材料寄到{address}可以吗？{name}，{phone}",
        ),
        "hiring": (
            "我想应聘会计岗位，简历已附上。{name}，电话{phone}，邮箱{email}。",
            "候选人{name}的面试请改到周四，可以打电话{phone}联系本人。",
            "新员工{name}的劳动合同请寄到{address}，身份证号{resident_id}。",
        ),
        "password": (
            "我忘记了登录密码，重置邮件没有发到{email}，请帮忙处理。{name}",
            "账号输错三次密码被锁了，请解锁。{name}，手机{phone}，身份证号{resident_id}。",
            "换了手机号，验证码收不到，新号码是{phone}，无法登录系统。{name}",
        ),
        "laptop": (
            "我的笔记本电脑屏幕不亮了，请把备用机寄到{address}。{name}，{phone}",
            "电脑电池只能用二十分钟，想申请更换。{name}，邮箱{email}。",
            "键盘进水，好几个键没有反应，请联系{name}，电话{phone}。",
        ),
        "network": (
            "在家办公时VPN总是断线，地址是{address}，请尽快处理。{name}，{phone}",
            "三楼会议室的无线网络连不上，请派人看看。{name}，电话{phone}。",
            "从昨天开始网速特别慢，视频会议一直卡。{name}，邮箱{email}。",
        ),
    }
)
"""Label to three Chinese templates with 2 or 3 slots of personal data each."""

HELD_OUT: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "invoice": (
            "Your bill for the {month} shipment of paper has not been settled yet.",
            "Please tell me when the supplier's invoice over {amount} will be paid.",
            "The total on the vendor bill from {city} doesn't match our purchase order.",
            "<PERSON> from accounts payable asked for the invoice number of the {month} delivery.",
            "We're sending you a payment reminder: {amount} have been overdue since {month}.",
            "Can you book the supplier's bill before {day}? The due date is close.",
            "Our company's billing details have changed; future invoices from {city} carry the account <IBAN_CODE>.",
            "The electricity provider billed us {amount} without stating the VAT.",
        ),
        "expense": (
            "I'd like to be reimbursed for the cab I took to the client in {city}.",
            "The hotel receipt from {city} won't upload to my expense report.",
            "How much may I spend on meals during a business trip to {city}?",
            "My manager <PERSON> signed the travel claim for {month}; when is it paid out?",
            "I used my corporate card for a team lunch on {day}. Where do I file the receipt?",
            "Mileage for my drive to the customer in {city} isn't on the claim form.",
            "I bought stationery worth {amount} out of my own pocket and want to claim it.",
            "The flight to {city} was paid with <CREDIT_CARD>; which cost centre is that?",
        ),
        "refund": (
            "The shoes I ordered in {month} don't fit; I sent them back and want my money.",
            "My card was debited twice for the same purchase on {day}.",
            "I called off the order on {day}, so please pay back the {amount}.",
            "It is {month} and I still haven't got the money for the item I returned.",
            "The lamp came with a crack. Can you give me the {amount} back?",
            "Please reverse the payment of {amount} to <CREDIT_CARD>, the parcel never came.",
            "I ended my subscription in {month}, yet you took {amount} again. I expect a repayment.",
            "How many days does it take until a returned product bought in {city} is credited?",
        ),
        "payroll": (
            "There's a mistake in my {month} payslip: the overtime hours are missing.",
            "My wages for {month} haven't been paid yet.",
            "Please transfer my pay to my new account <IBAN_CODE> from {month} on.",
            "Why is so much tax withheld from my {month} salary?",
            "When will the {month} bonus show up with our monthly pay?",
            "I need a salary statement of {month} for my landlord in {city}.",
            "<PERSON> of the {team} team got paid at the old hourly rate in {month}.",
            "The pension deduction on my {month} pay slip seems wrong.",
        ),
        "leave": (
            "Can I have {day} off? I'm moving house.",
            "I've caught the flu and won't be at work until {day}.",
            "I plan a holiday in {city} in {month} and need my days approved.",
            "Do my unused vacation days expire at the end of {month}?",
            "My wife gives birth in {month}. What paternity leave am I entitled to?",
            "<PERSON> will be away sick until {day}; the doctor's certificate is attached.",
            "I have to attend a funeral in {city} on {day} and ask for special leave.",
            "Please withdraw my holiday request for {month}.",
        ),
        "hiring": (
            "Is the job in your {city} office still vacant? I'd love to apply.",
            "The interview with the applicant on {day} has to be postponed.",
            "Our {team} team wants to recruit two people in {month}.",
            "<PERSON> was the strongest candidate for {team}; let's make an offer.",
            "I sent my resume for the position in {city} and heard nothing.",
            "Who takes part in the job interviews for {team} on {day}?",
            "Please draw up the work contract for the new hire who starts in {month}.",
            "Could you publish the vacancy in {city}? Applications go to <EMAIL_ADDRESS>.",
        ),
        "password": (
            "I can't remember my password for the {team} portal.",
            "After my holiday in {month} the system no longer accepts my login.",
            "My account has been blocked since {day} because I mistyped the password.",
            "I changed phones on {day}; the verification code for signing in still goes to <PHONE_NUMBER>.",
            "The link for resetting my password ran out on {day}. May I get another?",
            "<PERSON> joined {team} and has no user name and password yet.",
            "I think someone knows my login; I noticed it on {day} and want new credentials.",
            "The sign-in page on my {device} says the username or password is incorrect.",
        ),
        "laptop": (
            "The {device} screen flickers when I open the lid.",
            "My {device} doesn't turn on any more since {day}.",
            "The battery of the {device} is empty after half an hour.",
            "I dropped my {device} on {day} and the display is cracked.",
            "Some keys on the keyboard of my {device} are stuck.",
            "Our new starter in {city} needs a {device} with a docking station.",
            "The {device} gets very hot, and the fan never stops.",
            "<PERSON> left the {device} in a taxi in {city}; it may be stolen.",
        ),
        "network": (
            "The wifi in the {city} office keeps dropping out.",
            "I can't connect to the VPN from my hotel in {city}.",
            "The internet has been painfully slow since {day}.",
            "Since {day} none of the {team} people can reach the file server.",
            "The cable at my desk in {city} gives no connection.",
            "Is the firewall blocking the {team} site? The page doesn't load.",
            "Remote access from home fails with a timeout on my {device}.",
            "Please give our guest <PERSON> access to the wireless network on {day}.",
        ),
    }
)
"""Label to eight English templates without personal data; each has a slot of `VARIATIONS`."""

VARIATIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "amount": (
            "85 pounds", "120 dollars", "240 euros", "310 dollars",
            "460 pounds", "75 euros", "990 dollars", "1,500 euros",
        ),
        "city": (
            "Leeds", "Denver", "Bristol", "Austin", "Dublin",
            "Toronto", "Glasgow", "Seattle", "Lyon", "Turin",
        ),
        "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
        "device": (
            "laptop", "notebook", "computer", "work laptop",
            "office laptop", "company notebook", "travel laptop", "portable computer",
        ),
        "month": (
            "January", "February", "March", "April", "May", "June", "July",
            "August", "September", "October", "November", "December",
        ),
        "team": (
            "sales", "design", "support", "legal", "logistics", "marketing", "research", "purchasing",
        ),
    }
)  # fmt: skip
"""Slot of a held-out template to its values; none says anything about a person."""
